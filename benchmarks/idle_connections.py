"""What a kept connection that does nothing takes of the server's memory.

Each connection asks /health/ready once and is then held. (What a stream takes: growth.py.)
"""

import argparse
import json
import sys

import load_client
from figures import Row, table
from processes import Running
from rounds import Found, is_whole, take_turns
from servers import Counting, add_servers
from usage import descriptors, rss_bytes

WARM_CONNECTIONS = 20  # imports and first buffers are no part of a connection

ROWS: tuple[Row, ...] = (
    ("front RSS before, MiB", "before_mib", "{:.1f}"),
    ("front RSS with them, MiB", "with_mib", "{:.1f}"),
    ("memory per connection, KiB", "connection_kib", "{:.1f}"),
    ("descriptors per connection", "descriptors_each", "{:.2f}"),
    ("still open at the end", "open_at_end", "{:.0f}"),
    ("errors", "errors", "{:.0f}"),
)


def main() -> int:
    options = _options()
    counting = Counting(streams=8, tokens_per_s=20.0)
    rounds = take_turns(
        options.servers,
        options.rounds,
        counting,
        lambda _name, server: measure(server, options.connections, options.hold_s),
    )
    if options.json:
        print(json.dumps(rounds))
    else:
        print(table(f"{options.connections} idle connections", ROWS, rounds))
    return 0 if is_whole(rounds) else 1


def measure(server: Running, connections: int, hold_s: float) -> Found:
    def hold(count: int, for_s: float) -> tuple[Found, list[tuple[int, int]]]:
        marks: list[tuple[int, int]] = []
        found = load_client.run(
            "idle",
            server.port,
            lambda _: marks.append((rss_bytes(server.front_pids), descriptors(server.front_pids))),
            connections=count,
            hold_s=for_s,
            path="/health/ready",
        )
        return found, marks

    hold(WARM_CONNECTIONS, 0.5)
    before_bytes, before = rss_bytes(server.front_pids), descriptors(server.front_pids)
    found, marks = hold(connections, hold_s)
    with_bytes, held = marks[-1]
    return found | {
        "before_mib": before_bytes / 2**20,
        "with_mib": with_bytes / 2**20,
        "connection_kib": (with_bytes - before_bytes) / 1024 / connections,
        "descriptors_each": (held - before) / connections,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_servers(parser, ("rbee", "rbee-no-lane", "uvicorn"))
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--hold-s", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
