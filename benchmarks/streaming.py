"""Many streams at once: each opened in --ramp-s, measured for --measure-s while all of them run.

With --hang-up the client ends the streams after the window: for paces that a server cannot keep,
where the rest would take too long. With --probes-per-s, /health/ready is asked beside them.
See docs/performance.md.
"""

import argparse
import json
import sys

import load_client
from figures import Row, table
from processes import Running
from rounds import Found, is_whole, run_watched, take_turns
from servers import Counting, add_servers

ROWS: tuple[Row, ...] = (
    ("delivered, tokens/s", "delivered_per_s", "{:.0f}"),
    ("first chunk p50, ms", "first_chunk_p50_ms", "{:.1f}"),
    ("first chunk p99, ms", "first_chunk_p99_ms", "{:.0f}"),
    ("first token p50, ms", "first_token_p50_ms", "{:.0f}"),
    ("first token p99, ms", "first_token_p99_ms", "{:.0f}"),
    ("delay p50, ms", "delay_p50_ms", "{:.1f}"),
    ("delay p99, ms", "delay_p99_ms", "{:.1f}"),
    ("tokens per chunk", "tokens_per_chunk", "{:.2f}"),
    ("tokens per recv", "tokens_per_receive", "{:.2f}"),
    ("front CPU per token, µs", "front_us", "{:.1f}"),
    ("workers CPU per token, µs", "workers_us", "{:.1f}"),
    ("front RSS, MiB", "front_mib", "{:.0f}"),
    ("workers RSS, MiB, together", "workers_mib", "{:.0f}"),
    ("bytes of body per token", "bytes_per_token", "{:.0f}"),
    ("lost tokens", "lost", "{:.0f}"),
    ("duplicated tokens", "duplicated", "{:.0f}"),
    ("streams with an error", "errors", "{:.0f}"),
    ("health p50, ms", "health_p50_ms", "{:.2f}"),
    ("health p99, ms", "health_p99_ms", "{:.2f}"),
    ("health errors", "health_errors", "{:.0f}"),
    ("client CPU per token, µs", "client_us", "{:.1f}"),
    ("client, part of a core", "client_cores", "{:.2f}"),
    ("others on the machine, cores", "others_cores", "{:.2f}"),
)

# mosec has no routes of one's own beside its workers; this one says that it lives.
HEALTH_PATHS = {"mosec": "/"}


def main() -> int:
    options = _options()
    counting = Counting(
        streams=options.streams, tokens_per_s=options.tokens_per_s, workers=options.workers
    )
    rounds = take_turns(
        options.servers,
        options.rounds,
        counting,
        lambda name, server: measure(name, server, options),
    )
    if options.json:
        print(json.dumps(rounds))
    else:
        title = f"{options.streams} streams of {options.tokens_per_s:g} tokens/s"
        print(table(title, ROWS, rounds))
    return 0 if is_whole(rounds) else 1


def measure(name: str, server: Running, options: argparse.Namespace) -> Found:
    """One round: the load, and beside it the probe, from the window's begin to its end."""
    probes: list[load_client.LoadRun] = []
    path = HEALTH_PATHS.get(name, "/health/ready")

    def start_probe() -> None:
        if options.probes_per_s:
            times = {"probes_per_s": options.probes_per_s, "run_s": options.measure_s}
            probes.append(
                load_client.start("probe", server.port, path=path, connections=16, **times)
            )

    report = run_watched(
        "steady", server, per="window_tokens", at_begin=start_probe, streams=options.streams,
        tokens_per_s=options.tokens_per_s, ramp_s=options.ramp_s,
        measure_s=options.measure_s, hang_up=options.hang_up,
    )  # fmt: skip
    for probe in probes:
        with probe:
            health = probe.report()
        report |= {f"health_{key}": health[f"latency_{key}"] for key in ("p50_ms", "p99_ms")}
        report["health_errors"] = health["errors"]
    return report


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_servers(parser)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tokens-per-s", type=float, default=20.0, help="of each stream")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ramp-s", type=float, default=2.0, help="all streams are begun in it")
    parser.add_argument("--measure-s", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hang-up", action="store_true", help="end the streams after the window")
    parser.add_argument("--probes-per-s", type=float, default=0.0, help="of /health/ready; 0: none")
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
