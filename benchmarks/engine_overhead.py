"""What worker, link and HTTP cost: tokens/s of the CPU engine, served and bare.

Bursts of 1, 4 and 16 greedy streams, the same prompts for all, in turns: through the library's
C interface, through rbee's engine, and through `rbee serve`. A burst is over when its last
stream has ended; connecting, templates and prompts are in its time.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import load_client
import usage
from bare import MODEL_NAME, Bare, Burst
from figures import median
from processes import Running, ServerError
from servers import rbee

from rbee.ask import Ask

BEE_TINY: Final = Path(__file__).parents[1] / "rbee/models/bee_tiny/bee-tiny.gguf"
BURST_TIMEOUT_S: Final = 300.0
AIM: Final = 0.9

# No two streams of a burst have the same prompt.
SUBJECTS: Final = (
    "bee", "fox", "dog", "cat", "bear", "bird", "horse", "mouse", "frog", "duck", "owl", "fish",
    "rabbit", "cow", "hen", "goat", "snail", "wolf", "queen", "farmer",
)  # fmt: skip

WAYS: Final = ("library", "engine", "http")


def main() -> int:
    options = _options()
    if not options.model.is_file():
        print(f"{options.model}: there is no such file; name one with --model", file=sys.stderr)
        return 2
    largest = max(options.streams)
    bare = Bare(options.model, largest)
    config = _config(options.model, largest)
    with rbee(config) as server:
        print(f"{options.model.name}: {bare.info.detail}")
        found = measure(bare, server, options)
    bare.close()
    print(_table(found))
    return 0


Found = dict[int, dict[str, list[Burst]]]


def measure(bare: Bare, server: Running, options: argparse.Namespace) -> Found:
    found: Found = {streams: {way: [] for way in WAYS} for streams in options.streams}
    run: dict[str, Callable[[list[Ask]], Burst]] = {
        "library": bare.library_burst,
        "engine": bare.engine_burst,
        "http": lambda asks: http_burst(server, asks),
    }
    for number in range(-1, options.bursts):  # the first of all warms up and does not count
        for streams, ways in found.items():
            texts = [options.prompt.format(_subject(number + i)) for i in range(streams)]
            asks = [bare.ask(text, options.tokens) for text in texts]
            turn = WAYS if number % 2 else WAYS[::-1]
            bursts = {way: run[way](asks) for way in turn}
            if number >= 0:
                for way, burst in bursts.items():
                    ways[way].append(burst)
    return found


def _subject(number: int) -> str:
    return SUBJECTS[number % len(SUBJECTS)]


def http_burst(server: Running, asks: list[Ask]) -> Burst:
    """One burst through the server; its clock runs from the first connect to the last byte."""
    path, bodies = _path(asks), "\n".join(map(_body, asks))
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(bodies + "\n")
        file.flush()
        worker_s, supervisor_s = usage.cpu_s(server.worker_pids), usage.cpu_s(server.front_pids)
        found = load_client.run(
            "burst", server.port, bodies=file.name, path=path, timeout_s=BURST_TIMEOUT_S
        )
        worker_s, supervisor_s = (
            usage.cpu_s(server.worker_pids) - worker_s,
            usage.cpu_s(server.front_pids) - supervisor_s,
        )
    if found["whole"] != len(asks):
        raise ServerError(f"{found['whole']} of {len(asks)} answers are whole: {found['faults']}")
    return Burst(found["usage_tokens"], found["elapsed_s"], worker_s, supervisor_s)


def _path(asks: list[Ask]) -> str:
    return "/v1/chat/completions" if asks[0].messages else "/v1/completions"


def _body(ask: Ask) -> str:
    body = {
        "model": MODEL_NAME, "max_tokens": ask.tokens_max, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    if not ask.messages:
        return json.dumps(body | {"prompt": ask.prompt})
    messages = [{"role": each.role, "content": each.content} for each in ask.messages]
    return json.dumps(body | {"messages": messages})


def _config(model: Path, batch_size: int) -> str:
    return f"""
[[model]]
ref = "file:{model.absolute()}"
name = "{MODEL_NAME}"
batch_size = {batch_size}
"""


def _table(found: Found) -> str:
    titles = (
        "streams", "tokens", "library, tokens/s", "engine", "http", "http / engine",
        "http / library", "of the best",
    )  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|" + "---:|" * len(titles)]
    for streams, ways in found.items():
        tokens = {way: median([each.tokens for each in ways[way]]) for way in WAYS}
        rates = {way: [each.tokens_per_s for each in ways[way]] for way in WAYS}
        library, engine, http = (median(rates[way]) for way in WAYS)
        of_best = max(rates["http"]) / max(rates["library"])
        lines.append(
            f"| {streams} | {'/'.join(f'{tokens[way]:.0f}' for way in WAYS)} |"
            f" {library:.0f} | {engine:.0f} | {http:.0f} |"
            f" {http / engine:.2f} | {http / library:.2f} | {of_best:.2f} |"
        )
    lines.append(f"\nAim: http / library of at least {AIM}. Medians of the bursts.\n")
    lines += [
        "| CPU us per token, streams | library | engine | worker | supervisor |",
        "|" + "---:|" * 5,
    ]
    for streams, ways in found.items():
        costs = [_cpu_us(ways[way]) for way in WAYS]
        supervisor_s = sum(each.supervisor_cpu_s for each in ways["http"])
        told = 1e6 * supervisor_s / sum(each.tokens for each in ways["http"])
        lines.append(f"| {streams} | " + " | ".join(f"{c:.0f}" for c in costs) + f" | {told:.0f} |")
    return "\n".join(lines)


def _cpu_us(bursts: list[Burst]) -> float:
    return 1e6 * sum(each.engine_cpu_s for each in bursts) / sum(each.tokens for each in bursts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BEE_TINY, help="a .gguf file")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--bursts", type=int, default=9, help="of each way and number of streams")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer, at most")
    parser.add_argument(
        "--prompt", default="Tell me a long story about a {}.", help="{} becomes a word"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
