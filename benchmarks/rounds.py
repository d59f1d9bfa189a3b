"""Rounds: servers take turns, each round with a fresh server, in changing order."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import load_client
from figures import Figures
from processes import Running
from servers import STARTS, Counting
from usage import Usage, read_usage

Found = dict[str, Any]
Rounds = dict[str, list[Figures]]


def take_turns(
    servers: Sequence[str],
    rounds: int,
    counting: Counting,
    measure: Callable[[str, Running], Found],
) -> Rounds:
    """Measure each server ``rounds`` times; each round is told on stderr as it ends."""
    found: Rounds = {name: [] for name in servers}
    for number in range(rounds):
        for name in servers if number % 2 == 0 else reversed(servers):
            with STARTS[name](counting) as server:
                figures = measure(name, server)
            found[name].append(figures)
            tell(f"round {number + 1}, {name}: {json.dumps(figures)}")
    return found


def run_watched(
    mode: str,
    server: Running,
    *,
    per: str,
    at_begin: Callable[[], None] | None = None,
    **options: load_client.Option,
) -> Found:
    """Run a load, and see what the server takes in its window.

    Args:
      per: the count in the report that CPU time is divided by.
      at_begin: called when the window begins.

    Returns:
      The report, and what was taken.
    """
    marks: list[Usage] = []

    def at_mark(_mark: str) -> None:
        marks.append(read_usage(server))
        if at_begin is not None and len(marks) == 1:
            at_begin()

    report = load_client.run(mode, server.port, at_mark, **options)
    begin, end = marks
    return report | _taken(begin, end, report[per], report["client_cores"])


def _taken(begin: Usage, end: Usage, count: int, client_cores: float) -> Found:
    wall_s, per_one_us = end.wall_s - begin.wall_s, 1e6 / max(count, 1)
    front_s, workers_s = end.front_s - begin.front_s, end.workers_s - begin.workers_s
    ours_s = front_s + workers_s + client_cores * wall_s
    return {
        "front_us": front_s * per_one_us,
        "workers_us": workers_s * per_one_us,
        "front_mib": end.front_bytes / 2**20,
        "workers_mib": end.workers_bytes / 2**20,
        # What the machine did beside the run: the noise of a round.
        "others_cores": (end.machine_s - begin.machine_s - ours_s) / wall_s,
    }


def is_whole(rounds: Rounds) -> bool:
    """Whether rbee lost nothing, doubled nothing, and answered without an error."""
    counts = ("lost", "duplicated", "errors")
    ours = [each for name, found in rounds.items() if name.startswith("rbee") for each in found]
    return not any(each.get(count, 0) for each in ours for count in counts)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
