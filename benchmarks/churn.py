"""A long load of streams that begin, end and hang up: is memory flat, is every descriptor closed?

Memory and descriptors are sampled each second. Flat means: after --warm-s, the medians of the
tenths of the time left differ from their first by 5 % at most.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import load_client
from figures import median
from processes import Running
from servers import STARTS, Counting
from usage import descriptors, rss_bytes

SAMPLE_EVERY_S: Final = 1.0
SPANS: Final = 10
FLAT_PART: Final = 0.05
SETTLE_TIMEOUT_S: Final = 10.0  # for the server to close what the last clients left


def main() -> int:
    options = _options()
    streams = options.streams
    counting = Counting(streams=streams, tokens_per_s=options.tokens_per_s, workers=options.workers)
    with STARTS[options.server](counting) as server:
        load_client.run("churn", server.port, run_s=1.0, begins_per_s=20.0, tokens_max=20)
        idle = _settled_descriptors(server, descriptors(server.front_pids))
        samples, report = _run(server, options)
        left = _settled_descriptors(server, idle)
    found = judge(samples, options.warm_s) | {
        "descriptors_before": idle,
        "descriptors_after": left,
        "descriptors_most": max(sample["descriptors"] for sample in samples),
    }
    is_good = found["is_flat"] and left <= idle
    is_good &= not (report["lost"] or report["duplicated"] or report["errors"])
    if options.json:
        print(json.dumps(found | {"report": report, "samples": samples}))
    else:
        _print(found, report, options)
    return 0 if is_good else 1


def judge(samples: Sequence[dict[str, float]], warm_s: float) -> dict[str, Any]:
    """Whether memory stays as it was when the warm-up ended."""
    warm = [sample for sample in samples if sample["at_s"] >= warm_s]
    found: dict[str, Any] = {}
    size = max(1, len(warm) // SPANS)
    for name in ("front_mib", "workers_mib"):
        spans = [
            median([sample[name] for sample in warm[at : at + size]])
            for at in range(0, size * min(SPANS, len(warm)), size)
        ]
        found[f"{name}_spans"] = [round(span, 2) for span in spans]
        found[f"{name}_drift"] = max((abs(span / spans[0] - 1) for span in spans), default=1.0)
    drifts = (found["front_mib_drift"], found["workers_mib_drift"])
    found["is_flat"] = all(drift <= FLAT_PART for drift in drifts)
    return found


def _run(
    server: Running, options: argparse.Namespace
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    samples: list[dict[str, float]] = []
    begun_s = time.monotonic()
    with load_client.start(
        "churn", server.port, run_s=options.run_s, begins_per_s=options.begins_per_s,
        streams=options.streams, tokens_min=options.tokens_min, tokens_max=options.tokens_max,
        hang_up_part=options.hang_up_part,
    ) as load:  # fmt: skip
        while load.is_running() and time.monotonic() - begun_s < options.run_s:
            samples.append(
                {
                    "at_s": time.monotonic() - begun_s,
                    "front_mib": rss_bytes(server.front_pids) / 2**20,
                    "workers_mib": rss_bytes(server.worker_pids) / 2**20,
                    "descriptors": descriptors(server.front_pids),
                }
            )
            time.sleep(SAMPLE_EVERY_S)
        return samples, load.report()


def _settled_descriptors(server: Running, wanted: int) -> int:
    """How many are open when no client is left."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while (open_now := descriptors(server.front_pids)) > wanted and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return open_now


def _print(found: dict[str, Any], report: dict[str, Any], options: argparse.Namespace) -> None:
    print(f"{options.server}, {options.run_s:g} s: {report['streams']} streams, of them")
    print(f"  {report['whole']} whole, {report['hung_up']} hung up, {report['errors']} errors")
    print(f"  (at most {report['open_max']} open, {report['skipped']} not begun for want of room)")
    print(f"tokens: {report['tokens']}, {report['lost']} lost, {report['duplicated']} duplicated")
    for name in ("front_mib", "workers_mib"):
        drift = found[f"{name}_drift"]
        print(f"{name} by tenths after {options.warm_s:g} s: {found[f'{name}_spans']}")
        print(f"  at most {100 * drift:.1f} % from the first")
    print(
        f"descriptors of the front: {found['descriptors_before']} before,"
        f" {found['descriptors_most']} at most, {found['descriptors_after']} after"
    )
    print("faults:", report["faults"])
    print("memory is flat" if found["is_flat"] else "memory is NOT flat")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    # mosec does not see that a client went: its batch goes on.
    parser.add_argument("--server", choices=("rbee", "rbee-no-lane", "uvicorn"), default="rbee")
    parser.add_argument("--run-s", type=float, default=600.0)
    parser.add_argument("--warm-s", type=float, default=60.0)
    parser.add_argument("--begins-per-s", type=float, default=100.0, help="streams begun")
    parser.add_argument("--streams", type=int, default=1000, help="open at once, at most")
    parser.add_argument("--tokens-per-s", type=float, default=20.0, help="of each stream")
    parser.add_argument("--tokens-min", type=int, default=10)
    parser.add_argument("--tokens-max", type=int, default=100)
    parser.add_argument("--hang-up-part", type=float, default=0.25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print all samples as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
