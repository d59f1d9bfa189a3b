"""What a token costs as streams grow, and what a stream takes of the supervisor's memory.

The pace is --tokens-per-s, or less for many streams: all together get --total-per-s at most, so
that what is compared is the number of streams and not an overload.
"""

import argparse
import json
import sys

from figures import Row, table
from processes import Running
from rounds import Found, Rounds, is_whole, run_watched, take_turns
from servers import Counting, add_servers
from usage import rss_bytes

ROWS: tuple[Row, ...] = (
    ("delivered, tokens/s", "delivered_per_s", "{:.0f}"),
    ("front CPU per token, µs", "front_us", "{:.1f}"),
    ("workers CPU per token, µs", "workers_us", "{:.1f}"),
    ("front memory per stream, KiB", "stream_kib", "{:.1f}"),
    ("first token p99, ms", "first_token_p99_ms", "{:.0f}"),
    ("delay p99, ms", "delay_p99_ms", "{:.1f}"),
    ("lost or duplicated tokens", "wrong", "{:.0f}"),
    ("streams with an error", "errors", "{:.0f}"),
    ("others on the machine, cores", "others_cores", "{:.2f}"),
)


def main() -> int:
    options = _options()
    everything: dict[str, Rounds] = {}
    for streams in options.streams:
        pace = min(options.tokens_per_s, options.total_per_s / streams)
        counting = Counting(streams=streams, tokens_per_s=pace, workers=options.workers)

        def measure(_name: str, server: Running, counting: Counting = counting) -> Found:
            return measure_streams(server, counting, options)

        title = f"{streams} streams of {pace:g} tokens/s"
        everything[title] = take_turns(options.servers, options.rounds, counting, measure)
        if not options.json:
            print(table(title, ROWS, everything[title]) + "\n", flush=True)
    if options.json:
        print(json.dumps(everything))
    return 0 if all(map(is_whole, everything.values())) else 1


def measure_streams(server: Running, counting: Counting, options: argparse.Namespace) -> Found:
    before_bytes = rss_bytes(server.front_pids)
    ramp_s = max(1.0, counting.streams / options.begins_per_s)
    found = run_watched(
        "steady", server, per="window_tokens", streams=counting.streams,
        tokens_per_s=counting.tokens_per_s, ramp_s=ramp_s, measure_s=options.measure_s,
    )  # fmt: skip
    grown_bytes = found["front_mib"] * 2**20 - before_bytes
    found["stream_kib"] = grown_bytes / 1024 / counting.streams
    found["wrong"] = found["lost"] + found["duplicated"]
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_servers(parser)
    parser.add_argument("--streams", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--tokens-per-s", type=float, default=20.0, help="of each stream, at most")
    parser.add_argument("--total-per-s", type=float, default=20_000.0, help="at most")
    parser.add_argument("--begins-per-s", type=float, default=500.0, help="streams begun")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--measure-s", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
