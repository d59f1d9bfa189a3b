"""The configuration of `rbee serve` with workers that generate without a model."""


def synthetic_config(workers: int, streams: int, tokens_per_s: float) -> str:
    """Room for all streams at once, also when they are split unevenly over the workers."""
    batch_size = streams * 6 // (5 * workers) + 8
    return f"""
[server]
queue_requests_max = {streams}
[[model]]
ref = "synthetic"
name = "synthetic"
slots = {workers}
batch_size = {batch_size}
[model.synthetic]
tokens_per_s = {tokens_per_s}
"""
