"""Many slow streams at once: `rbee serve` beside uvicorn + starlette + zmq.asyncio.

Each round starts a fresh server with workers that generate at a steady pace without a model,
opens all streams in ``--ramp-s``, measures for ``--measure-s`` while all of them run, and lets
them end. Rounds of the two servers take turns, in changing order. See docs/performance.md.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import usage
from figures import Round, Window, make_round, median
from servers import HOST, Running, baseline, rbee
from streams import Load, count_request, run_load
from synthetic import synthetic_config
from transcript import read_transcript

Start = Callable[[], AbstractContextManager[Running]]

ROWS = (
    ("delivered, tokens/s", "delivered_per_s", "{:.0f}"),
    ("  of what was offered", "delivered_part", "{:.3f}"),
    ("time to first token p50, ms", "first_p50_ms", "{:.0f}"),
    ("time to first token p99, ms", "first_p99_ms", "{:.0f}"),
    ("delay p50, ms", "delay_p50_ms", "{:.1f}"),
    ("delay p99, ms", "delay_p99_ms", "{:.1f}"),
    ("supervisor CPU per token, us", "supervisor_us", "{:.1f}"),
    ("workers CPU per token, us", "workers_us", "{:.1f}"),
    ("supervisor RSS, MiB", "supervisor_mib", "{:.0f}"),
    ("workers RSS, MiB, together", "workers_mib", "{:.0f}"),
    ("bytes of body per token", "token_bytes", "{:.0f}"),
    ("lost tokens", "lost", "{:.0f}"),
    ("duplicated tokens", "duplicated", "{:.0f}"),
    ("streams with an error", "errors", "{:.0f}"),
    ("client CPU per token, us", "client_us", "{:.1f}"),
    ("client, part of a core", "client_share", "{:.2f}"),
    ("others on the machine, cores", "others_share", "{:.2f}"),
)


def main() -> int:
    options = _options()
    load = Load(options.streams, options.tokens_per_s, options.ramp_s, options.measure_s)
    config = synthetic_config(options.workers, options.streams, options.tokens_per_s)
    starts: dict[str, Start] = {
        "rbee": lambda: rbee(config),
        "baseline": lambda: baseline(options.workers, load.tokens_per_s, uvloop=options.uvloop),
    }
    chosen = [name for name in starts if options.only in (None, name)]
    rounds: dict[str, list[Round]] = {name: [] for name in chosen}
    for number in range(options.rounds):
        for name in chosen if number % 2 == 0 else reversed(chosen):
            result = measure(starts[name], load)
            rounds[name].append(result)
            _tell(f"round {number + 1}, {name}: {_line(result)}")
    if options.json:
        found = {name: [dataclasses.asdict(each) for each in rounds[name]] for name in chosen}
        print(json.dumps(found))
    else:
        print(_table(rounds))
    is_whole = all(
        each.lost == each.duplicated == each.errors == 0 for each in rounds.get("rbee", ())
    )
    return 0 if is_whole else 1


def measure(start: Start, load: Load) -> Round:
    """One round against a fresh server."""
    with start() as server:
        marks: list[usage.CpuTimes] = []
        memory: list[int] = []

        def at_window(is_begin: bool) -> None:
            marks.append(_cpu(server))
            if not is_begin:
                pids = (server.pid, *server.worker_pids)
                memory.extend(usage.rss_bytes(pid) for pid in pids)

        request = count_request(HOST, server.port, load.tokens, stream=True)
        raws = run_load(HOST, server.port, load, request, at_window)
    begin, end = marks
    window = Window(begin.wall_s, end.wall_s, end.since(begin), memory[0], sum(memory[1:]))
    transcripts = [read_transcript(raw, load.tokens) for raw in raws]
    return make_round(transcripts, window, load.tokens_per_s)


def _cpu(server: Running) -> usage.CpuTimes:
    return usage.CpuTimes(
        supervisor_s=usage.cpu_s(server.pid),
        workers_s=usage.cpu_s(*server.worker_pids),
        client_s=time.process_time(),
        machine_s=usage.machine_cpu_s(),
        wall_s=time.monotonic(),
    )


def _table(rounds: dict[str, list[Round]]) -> str:
    """Medians over the rounds, and their ratios where there are two servers."""
    names = list(rounds)
    head = f"| median of {len(rounds[names[0]])} |" + "".join(f" {name} |" for name in names)
    lines = [head + (" ratio |" if len(names) == 2 else "")]
    lines.append("|---|" + "---:|" * (len(names) + (len(names) == 2)))
    for title, field, form in ROWS:
        values = [median([getattr(each, field) for each in rounds[name]]) for name in names]
        cells = [form.format(value) for value in values]
        if len(names) == 2:
            cells.append(f"{values[0] / values[1]:.2f}" if values[1] else "")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _line(result: Round) -> str:
    told = (
        f"{result.delivered_per_s:.0f}/s, first {result.first_p50_ms:.0f}/{result.first_p99_ms:.0f}"
        f" ms, delay p99 {result.delay_p99_ms:.0f} ms, supervisor {result.supervisor_us:.1f}"
        f" us/token, client {result.client_share:.2f}, others {result.others_share:.2f},"
        f" lost {result.lost}, errors {result.errors}"
    )
    return told + (f" {result.faults}" if result.faults else "")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tokens-per-s", type=float, default=20.0, help="of each stream")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ramp-s", type=float, default=2.0, help="all streams are begun in it")
    parser.add_argument("--measure-s", type=float, default=9.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("rbee", "baseline"), help="measure but one")
    parser.add_argument("--uvloop", action="store_true", help="the baseline on uvloop")
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
