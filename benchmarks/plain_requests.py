"""Short requests, one after the other on kept connections: requests/s and latency.

A closed loop: each connection sends its next request when it has the answer to the last. Asked
are a list, a health check, and a completion of one token, not streamed, from workers with steps
of 1 ms. mosec has no routes beside its workers, so it answers but the last.
"""

import argparse
import json
import sys
from typing import NamedTuple

from figures import Row, table
from processes import Running
from rounds import Found, Rounds, is_whole, run_watched, take_turns
from servers import Counting, add_servers

TOKENS_PER_S = 1000.0  # of each worker: a step is 1 ms

COMPLETION = json.dumps(
    {"model": "synthetic", "messages": [{"role": "user", "content": "count"}], "max_tokens": 1}
)

OWN_ROUTES = ("rbee", "rbee-no-lane", "uvicorn")


class Asked(NamedTuple):
    """One kind of request, and the servers that can answer it."""

    servers: tuple[str, ...]
    path: str
    body: str | bool = False  # False: it is a GET


REQUESTS = {
    "models": Asked(OWN_ROUTES, "/v1/models"),
    "health": Asked(OWN_ROUTES, "/health/ready"),
    "completion": Asked((*OWN_ROUTES, "mosec"), "/v1/chat/completions", COMPLETION),
}

ROWS: tuple[Row, ...] = (
    ("requests/s", "requests_per_s", "{:.0f}"),
    ("p50, ms", "latency_p50_ms", "{:.1f}"),
    ("p95, ms", "latency_p95_ms", "{:.1f}"),
    ("p99, ms", "latency_p99_ms", "{:.1f}"),
    ("front CPU per request, µs", "front_us", "{:.0f}"),
    ("workers CPU per request, µs", "workers_us", "{:.0f}"),
    ("errors", "errors", "{:.0f}"),
    ("client, part of a core", "client_cores", "{:.2f}"),
    ("others on the machine, cores", "others_cores", "{:.2f}"),
)


def main() -> int:
    options = _options()
    counting = Counting(
        streams=options.connections,
        tokens_per_s=TOKENS_PER_S,
        workers=options.workers,
        is_streamed=False,
    )
    everything: dict[str, Rounds] = {}
    for name in options.requests:
        asked = REQUESTS[name]

        def measure(_name: str, server: Running, asked: Asked = asked) -> Found:
            return run_watched(
                "closed", server, per="answers", connections=options.connections,
                warm_s=options.warm_s, measure_s=options.measure_s, path=asked.path,
                body=asked.body,
            )  # fmt: skip

        servers = [each for each in options.servers if each in asked.servers]
        everything[name] = take_turns(servers, options.rounds, counting, measure)
        if not options.json and servers:
            title = f"{name}, {options.connections} connections"
            print(table(title, ROWS, everything[name]) + "\n", flush=True)
    if options.json:
        print(json.dumps(everything))
    return 0 if all(map(is_whole, everything.values())) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_servers(parser)
    parser.add_argument("--requests", nargs="+", choices=REQUESTS, default=list(REQUESTS))
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--warm-s", type=float, default=1.0)
    parser.add_argument("--measure-s", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
