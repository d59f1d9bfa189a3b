"""Does the time of an answer tell whether a key's id is known?

``python -m tests.security.timing`` asks a server, over loopback, with keys of unknown ids and with
wrong secrets for a known id, in turns drawn at random, each key once. It prints the medians, and by
how much they differ; exit code 1: by 10 % or more (goal of R2).

The server is the real face on the real lane, with real argon2; only the throttle is set so that it
lets all of them pass.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from rbee.supervisor.access.api_key import NewKey, new_key
from rbee.supervisor.access.hashing import fits
from rbee.supervisor.access.minting import KeyOrder, mint
from rbee.supervisor.access.principal import Role
from tests.access.keys import forged
from tests.access.served import request, serve_keyed

DIFFERENCE_MAX: Final = 0.10


@dataclass(frozen=True)
class Times:
    """Seconds from the request to the end of the answer, of each kind of key."""

    unknown_s: list[float]
    wrong_s: list[float]

    @property
    def difference(self) -> float:
        """How much the medians differ, as a part of the smaller one."""
        medians = statistics.median(self.unknown_s), statistics.median(self.wrong_s)
        return max(medians) / min(medians) - 1


async def measure(folder: Path, tries: int, chance: random.Random) -> Times:
    """Ask ``tries`` times with each kind of key."""
    times = Times([], [])
    async with serve_keyed(folder, patience_s=60 + tries) as keyed:
        keyed.stand.verifier._fits = fits  # argon2, as the server does it
        known, row = mint(KeyOrder(role=Role.USER), int(keyed.stand.now_unix_s))
        await keyed.keeper.add(row)
        turns = [times.unknown_s, times.wrong_s] * tries
        chance.shuffle(turns)
        async with await keyed.served.connect() as client:
            for taken_s in turns:
                key: NewKey = new_key() if taken_s is times.unknown_s else forged(known.id)
                begun_s = time.perf_counter()
                await client.send(request("GET", "/v1/models", key))
                answer = await client.read_answer()
                taken_s.append(time.perf_counter() - begun_s)
                assert answer.status == 401, answer
        answer = await keyed.ask("GET", "/v1/models", known)
        assert answer.status == 200, "it is a key: else both kinds would be the same"
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=2000, help="with each kind of key")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rbee-timing-") as folder:
        chance = random.Random(arguments.seed)
        times = trio.run(measure, Path(folder), arguments.tries, chance)
    for kind, taken_s in (("unknown id", times.unknown_s), ("wrong secret", times.wrong_s)):
        median_ms = statistics.median(taken_s) * 1000
        print(f"{kind:12}  {len(taken_s)} tries, median {median_ms:.3f} ms")
    print(f"they differ by {times.difference:.2%}; the limit is {DIFFERENCE_MAX:.0%}")
    return 0 if times.difference < DIFFERENCE_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
