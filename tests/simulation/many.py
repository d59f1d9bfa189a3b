"""Plays many seeds, in as many processes as there are cores."""

import faulthandler
import functools
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

from tests.simulation.mutants import MUTANTS, find
from tests.simulation.simulate import Outcome, simulate

# A seed that takes more of a processor than this does not end at all.
SEED_CPU_S_MAX: Final = 300.0

SEEDS_PER_PROCESS: Final = 500

TELL_EVERY_SEEDS: Final = 100
EVENTS_SHOWN: Final = 25


def play_all(seeds: range, duration_s: float, jobs: int) -> int:
    begun_s = time.monotonic()
    play = functools.partial(_play, duration_s=duration_s)
    with ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=SEEDS_PER_PROCESS
    ) as pool:
        played = as_completed([pool.submit(play, seed) for seed in seeds])
        bad, requests = _gather(each.result() for each in played)
    took_s = time.monotonic() - begun_s
    virtual_s = duration_s * len(seeds)
    for how, count in requests.most_common():
        print(f"  {count:8d} {how}")
    print(
        f"{len(seeds)} seeds of {duration_s:g} s in {took_s:.1f} s with {jobs} processes:"
        f" {virtual_s / took_s:.0f} times real time, {len(bad)} bad: {sorted(bad)}"
    )
    return 1 if bad else 0


def _play(seed: int, duration_s: float) -> Outcome:
    def give_up(*_: object) -> None:
        """End this process, and so the whole run: whoever began it hears that it broke."""
        print(f"seed {seed} does not end", file=sys.stderr)
        faulthandler.dump_traceback()
        os._exit(1)

    signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, SEED_CPU_S_MAX)
    try:
        return simulate(seed, duration_s)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)


def find_mutants(seeds: range, duration_s: float, jobs: int) -> int:
    """Plant each of `MUTANTS`, and see which simulation finds it."""
    search = functools.partial(find, seeds=seeds, duration_s=duration_s)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        found = pool.imap(search, MUTANTS, chunksize=1)
        missed = [
            name for name, outcome in zip(MUTANTS, found, strict=True) if not _tell(name, outcome)
        ]
    print(f"{len(missed)} of {len(MUTANTS)} planted bugs were not found: {missed}")
    return 1 if missed else 0


def _tell(name: str, outcome: Outcome | None) -> bool:
    if outcome is not None:
        print(f"{name}: seed {outcome.seed}: {outcome.violations[0].strip().splitlines()[-1]}")
    return outcome is not None


def _gather(outcomes: Iterable[Outcome]) -> tuple[list[int], Counter[str]]:
    bad: list[int] = []
    totals: Counter[str] = Counter()
    for played, outcome in enumerate(outcomes, 1):
        if played % TELL_EVERY_SEEDS == 0:
            print(f"{played} seeds played, {len(bad)} bad", file=sys.stderr)
        totals.update(outcome.requests)
        totals.update(workers=outcome.workers, restarts=outcome.restarts)
        if not outcome.is_good:
            bad.append(outcome.seed)
            print(f"seed {outcome.seed}: {verdict(outcome)}")
            print("\n".join(f"    {event[:200]}" for event in outcome.events[-EVENTS_SHOWN:]))
            sys.stdout.flush()
    return bad, totals


def verdict(outcome: Outcome) -> str:
    """The first violation ended the simulation: those behind it are of its end, and say little."""
    if outcome.is_good:
        return "good"
    more = len(outcome.violations) - 1
    return outcome.violations[0] + (f" (and {more} more)" if more else "")
