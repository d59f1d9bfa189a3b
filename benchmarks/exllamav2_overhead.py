"""Tokens per second of exllamav2's bare generator beside those through rbee's engine seam.

Both run in this process, on the same loaded model, the same prompts and greedy sampling, in
turns. Needs a GPU and the exllamav2 extra (`rbee doctor --prepare` once before).

    python benchmarks/exllamav2_overhead.py --model FOLDER --streams 1 4 16 64 --tokens 256
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rbee.ask import Sampling
from rbee.config import ModelConfig
from rbee.engine.engine import Job, LoadSpec
from rbee.engine.exllamav2 import ExLlamaV2Engine

ROUNDS: Final = 3
Engine = Any
"""An `ExLlamaV2Engine`, whose insides are driven past the seam."""

PROMPT: Final = "Write a long story about a bee that wanted to see the sea. "


def bare(engine: Engine, prompts: list[list[int]], tokens: int) -> int:
    """Drive the generator itself. Gives the number of tokens that came."""
    loaded, library = engine._loaded, engine._library
    for ids in prompts:
        loaded.generator.enqueue(
            library.generator.ExLlamaV2DynamicJob(
                input_ids=library.torch.tensor([ids], dtype=library.torch.long),
                max_new_tokens=tokens,
                gen_settings=library.generator.ExLlamaV2Sampler.Settings.greedy(),
            )
        )
    count = 0
    while loaded.generator.num_remaining_jobs():
        for result in loaded.generator.iterate():
            count += result["new_tokens"] if result["eos"] else 0
    return count


def through_the_seam(engine: Engine, prompts: list[list[int]], tokens: int) -> int:
    sampling = Sampling(temperature=0)
    for job_id, ids in enumerate(prompts):
        engine.enqueue(Job(job_id, tuple(ids), tokens, sampling))
    count, left = 0, len(prompts)
    while left:
        for result in engine.step():
            count += len(result.token_ids)
            left -= result.finish is not None
    return count


Run = Callable[[Engine, list[list[int]], int], int]


def tokens_per_s(run: Run, engine: Engine, prompts: list[list[int]], tokens: int) -> float:
    start_s = time.perf_counter()
    return run(engine, prompts, tokens) / (time.perf_counter() - start_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder in HF or EXL2 form")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--cache-bits", type=int, choices=(4, 6, 8, 16), default=16)
    asked = parser.parse_args()
    engine: Engine = ExLlamaV2Engine()
    model = ModelConfig(
        ref=f"file:{asked.model}",
        engine="exllamav2",
        cache_bits=asked.cache_bits,
        batch_size=max(asked.streams),
    )
    info = engine.load(LoadSpec(model, asked.model, threads=1), lambda _phase, _fraction: None)
    engine.tokenizer.end_ids = frozenset()  # no answer may end early
    print(f"{info.device}, {info.detail}")
    print("streams  bare tokens/s  seam tokens/s  ratio")
    for streams in asked.streams:
        # Different first tokens: a shared prefix would be read once only.
        ids = engine.tokenizer.encode(PROMPT, special=False, bos=False)
        prompts = [[token, *ids] for token in range(300, 300 + streams)]
        runs: dict[str, list[float]] = {"bare": [], "seam": []}
        for _ in range(ROUNDS):
            runs["bare"].append(tokens_per_s(bare, engine, prompts, asked.tokens))
            runs["seam"].append(tokens_per_s(through_the_seam, engine, prompts, asked.tokens))
        middle = {name: statistics.median(values) for name, values in runs.items()}
        ratio = middle["seam"] / middle["bare"]
        print(f"{streams:7d} {middle['bare']:14.1f} {middle['seam']:14.1f} {ratio:6.3f}")
    engine.close()


if __name__ == "__main__":
    main()
