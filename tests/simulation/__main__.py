"""``python -m tests.simulation``: plays many seeds at once, or one again in all detail.

    python -m tests.simulation --seeds 0:10000
    python -m tests.simulation --replay 4711 | less
    python -m tests.simulation --mutants --duration-s 600

Prints each seed that breaks an invariant; ends with 1 if there is one.
"""

import argparse
import os
import sys
from typing import Final

from tests.simulation import trace
from tests.simulation.many import find_mutants, play_all, verdict
from tests.simulation.simulate import simulate

DURATION_S: Final = 3600.0


def main() -> int:
    options = _options()
    if options.replay is not None:
        trace.keep_all_events()
        outcome = simulate(options.replay, options.duration_s)
        print("\n".join(outcome.events))
        print(f"{outcome.digest} {verdict(outcome)}")
        return 0 if outcome.is_good else 1
    first, _, end = options.seeds.partition(":")
    if options.mutants:
        return find_mutants(range(int(first), int(end)), options.duration_s, options.jobs)
    return play_all(range(int(first), int(end)), options.duration_s, options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="FIRST:END")
    parser.add_argument("--replay", type=int, help="one seed, with all that happens")
    parser.add_argument("--mutants", action="store_true", help="plant bugs, and look for them")
    parser.add_argument("--duration-s", type=float, default=DURATION_S, help="virtual seconds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
