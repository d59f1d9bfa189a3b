"""C1: many streams held for minutes, every token of them numbered; and what memory that takes.

Streams are begun in --ramp-s and run for --run-s. Good is: none broken, no token wrong, missing
or twice, and no more than --front-mib-max resident in the supervisor.
"""

import argparse
import json
import sys
import time
from typing import Any, Final

import load_client
from servers import STARTS, Counting
from usage import rss_bytes

SAMPLE_EVERY_S: Final = 1.0
STREAM_MARGIN_S: Final = 5.0  # what a stream lasts beside ramp and window


def main() -> int:
    options = _options()
    tokens = (options.ramp_s + options.run_s + STREAM_MARGIN_S) * options.tokens_per_s
    counting = Counting(
        streams=options.streams,
        tokens_per_s=options.tokens_per_s,
        workers=options.workers,
        context_length=max(4096, int(tokens) + 256),
    )
    with STARTS[options.server](counting) as server:
        front, workers = [rss_bytes(server.front_pids)], [rss_bytes(server.worker_pids)]
        with load_client.start(
            "steady", server.port, streams=options.streams, tokens_per_s=options.tokens_per_s,
            ramp_s=options.ramp_s, measure_s=options.run_s,
        ) as load:  # fmt: skip
            while load.is_running():
                front.append(rss_bytes(server.front_pids))
                workers.append(rss_bytes(server.worker_pids))
                time.sleep(SAMPLE_EVERY_S)
            report = load.report()
    found = {
        "front_mib": max(front) / 2**20,
        "front_idle_mib": front[0] / 2**20,
        "workers_mib": max(workers) / 2**20,
    }
    is_good = report["whole"] == options.streams and found["front_mib"] <= options.front_mib_max
    is_good &= not (report["lost"] or report["duplicated"] or report["errors"])
    if options.json:
        print(json.dumps({**found, "report": report, "is_good": is_good}))
    else:
        _print(found, report, options, is_good=is_good)
    return 0 if is_good else 1


def _print(
    found: dict[str, float], report: dict[str, Any], options: argparse.Namespace, *, is_good: bool
) -> None:
    print(
        f"{options.server}: {options.streams} streams of {options.tokens_per_s:g} tokens/s"
        f" for {options.run_s:g} s"
    )
    print(f"  {report['whole']} whole, {report['errors']} errors, faults: {report['faults']}")
    print(
        f"  {report['delivered_per_s']:.0f} tokens/s delivered,"
        f" {report['lost']} lost, {report['duplicated']} duplicated"
    )
    print(f"  delay p99 {report['delay_p99_ms']:.1f} ms")
    print(
        f"  front {found['front_mib']:.1f} MiB at most ({found['front_idle_mib']:.1f} idle),"
        f" workers {found['workers_mib']:.1f} MiB together"
    )
    print("C1 holds" if is_good else "C1 does NOT hold")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=("rbee", "rbee-no-lane"), default="rbee")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tokens-per-s", type=float, default=20.0, help="of each stream")
    parser.add_argument("--ramp-s", type=float, default=2.0, help="all streams are begun in it")
    parser.add_argument("--run-s", type=float, default=600.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--front-mib-max", type=float, default=250e6 / 2**20)
    parser.add_argument("--json", action="store_true", help="print as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
