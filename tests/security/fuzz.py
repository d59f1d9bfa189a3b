"""Feeds every reader of bytes from outside with made inputs, and holds it to its contract.

    python -m tests.security.fuzz --inputs 1000000 [--target NAME] [--seed N]

Each input is one of a few good ones, changed by chance. Only the exceptions that a reader
declares may come out of it, and none may take longer than the target's limit of CPU time. A
finding is printed with its input and can be fed again: --again HEX.

Exit codes: 0 nothing found, 1 something.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.security.fuzz_targets import TARGETS
from tests.security.model_targets import model_targets
from tests.security.mutation import mutate
from tests.security.target import Target

FINDINGS_MAX: Final = 5  # of one target; then the next


@dataclass
class Findings:
    """What one target was fed, and what came of it."""

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    found: list[str] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)


def feed(target: Target, data: bytes, findings: Findings) -> None:
    """One input."""
    findings.inputs += 1
    begun_s = time.thread_time()
    try:
        target.read(data)
    except target.declared:
        findings.refused += 1
    except Exception as error:  # noqa: BLE001  # whatever it is, it was not declared
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {place.filename}:{place.lineno}"
        findings.places[where] += 1
        if findings.places[where] == 1:
            findings.found.append(f"{where}: {error!r:.200}\n  --again {data.hex()}")
    taken_s = time.thread_time() - begun_s
    findings.slowest_s = max(findings.slowest_s, taken_s)
    if taken_s > target.cpu_s_max:
        findings.found.append(f"{taken_s:.2f} s of CPU time\n  --again {data.hex()}")


def run(target: Target, inputs: int, seed: int) -> Findings:
    """Feed a target its good inputs, and so many changed ones. The same seed, the same inputs."""
    chance = random.Random(f"{target.name} {seed}")
    findings = Findings()
    for data in target.seeds:
        feed(target, data, findings)
    for _ in range(inputs):
        feed(target, mutate(chance, target.seeds, target.words), findings)
        if len(findings.found) >= FINDINGS_MAX:
            break
    return findings


def all_targets(folder: Path) -> tuple[Target, ...]:
    return (*TARGETS, *model_targets(folder))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000, help="for each target")
    parser.add_argument("--target", default="", help="one alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", default="", help="one input, in hexadecimal digits")
    options = parser.parse_args()
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as folder:
        targets = [each for each in all_targets(Path(folder)) if options.target in ("", each.name)]
        if options.again:
            for target in targets:
                target.read(bytes.fromhex(options.again))
            return 0
        has_found = False
        for target in targets:
            begun_s = time.monotonic()
            findings = run(target, options.inputs, options.seed)
            has_found |= bool(findings.found)
            print(
                f"{target.name:22} {findings.inputs:>9} inputs  {findings.refused:>9} refused"
                f"  slowest {findings.slowest_s * 1000:8.2f} ms CPU"
                f"  {time.monotonic() - begun_s:7.1f} s  {len(findings.found)} findings",
                flush=True,
            )
            for each in findings.found:
                print(each, flush=True)
    return int(has_found)


if __name__ == "__main__":
    sys.exit(main())
