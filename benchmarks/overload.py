"""C2: more clients than the server takes. How soon are the others refused, who pays for it?

First --capacity streams alone, begun in --ramp-s; then, at a fresh server, --offered in the same
time, of which --capacity find room. The streams run on to the end of the round. Good is: each
that finds none is told so within a second, by a 429 or 503 with Retry-After, or a reset; the
first token of those that do comes at most a quarter later at p95; /health/live is answered within
50 ms at p99.
"""

import argparse
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

import load_client
from figures import percentile
from processes import HOST
from servers import STARTS, Counting

REFUSED_S_MAX: Final = 1.0
FIRST_TOKEN_MORE: Final = 1.25
FIRST_TOKEN_MORE_MS: Final = 2.0  # of two runs on a busy machine: less is no difference
HEALTH_P99_MS: Final = 50.0

PROBES_PER_S: Final = 50.0

# A round waits so long more for clients that were told nothing so far.
GIVE_UP_S: Final = 30.0

BODY: Final = json.dumps(
    {"model": "synthetic", "messages": [{"role": "user", "content": "count"}], "stream": True,
     "max_tokens": 1000}
).encode()  # fmt: skip
REQUEST: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
FIRST_TOKEN: Final = b'"content":"0 '  # and more, where several tokens came at once


@dataclass(slots=True)
class Client:
    """One connection, and what it was told."""

    sock: socket.socket
    begun_s: float
    heard: bytes = b""  # until its first token
    first_s: float | None = None  # from its begin to its first token
    refused_s: float | None = None  # from its begin to the refusal
    how: str = ""  # it was refused


@dataclass(slots=True)
class Crowd:
    """All clients of a round."""

    port: int
    clients: list[Client] = field(default_factory=list)

    def run(self, count: int, ramp_s: float, hold_s: float) -> None:
        """Begin ``count`` clients evenly in ``ramp_s``, and hear all of them ``hold_s`` longer."""
        epoll, open_now = select.epoll(), dict[int, Client]()
        begun_s = time.monotonic()
        while (now_s := time.monotonic()) < begun_s + ramp_s + hold_s or (
            self._are_waiting(count) and now_s < begun_s + ramp_s + hold_s + GIVE_UP_S
        ):
            while len(self.clients) < min(count, count * (now_s - begun_s) / ramp_s):
                client = self._begin()
                open_now[client.sock.fileno()] = client
                epoll.register(client.sock.fileno(), select.EPOLLIN)
            for descriptor, _ in epoll.poll(0.001, 256):
                if not hear(open_now[descriptor]):
                    epoll.unregister(descriptor)
                    open_now.pop(descriptor).sock.close()
        for client in open_now.values():
            client.sock.close()
        epoll.close()

    def _are_waiting(self, count: int) -> bool:
        """Whether some are still to come, or to be told."""
        is_any_untold = any(each.first_s is None and not each.how for each in self.clients)
        return is_any_untold or len(self.clients) < count

    def _begin(self) -> Client:
        begun_s = time.monotonic()
        client = Client(socket.create_connection((HOST, self.port), 10), begun_s)
        client.sock.setblocking(False)
        client.sock.send(REQUEST)
        self.clients.append(client)
        return client

    def report(self) -> dict[str, Any]:
        firsts_ms = [1000 * each.first_s for each in self.clients if each.first_s is not None]
        refused = [each for each in self.clients if each.refused_s is not None]
        told_s = [each.refused_s for each in refused if each.refused_s is not None]
        return {
            "offered": len(self.clients),
            "admitted": len(firsts_ms),
            "refused": {how: sum(each.how == how for each in refused) for how in HOWS},
            "refused_slowest_ms": 1000 * max(told_s, default=0.0),
            "refused_p95_ms": 1000 * percentile(told_s, 95) if told_s else 0.0,
            "first_token_p50_ms": percentile(firsts_ms, 50),
            "first_token_p95_ms": percentile(firsts_ms, 95),
        }


RIGHT: Final = ("Retry-After", "reset")
HOWS: Final = (*RIGHT, "otherwise")


def hear(client: Client) -> bool:
    """Take what has come. False: it is over."""
    try:
        data = client.sock.recv(65_536)
    except OSError:
        data = b""
    since_s = time.monotonic() - client.begun_s
    if client.first_s is not None:  # what comes later is not looked at
        return bool(data)
    client.heard += data
    if FIRST_TOKEN in client.heard:
        client.first_s = since_s
        return True
    is_whole = b"\r\n\r\n" in client.heard
    if data and (not is_whole or client.heard.startswith(b"HTTP/1.1 200 ")):
        return True
    client.refused_s, client.how = since_s, _how(client.heard)
    return False


def _how(heard: bytes) -> str:
    if not heard:
        return "reset"
    is_busy = heard.startswith((b"HTTP/1.1 429 ", b"HTTP/1.1 503 "))
    return RIGHT[0] if is_busy and b"\r\nretry-after: " in heard.lower() else "otherwise"


def main() -> int:
    options = _options()
    alone = measure(options, options.capacity)
    crowded = measure(options, options.offered)
    wrong = judge(alone, crowded, options.capacity)
    if options.json:
        print(json.dumps({"alone": alone, "crowded": crowded, "wrong": wrong}))
    else:
        for name, found in (("alone", alone), ("crowded", crowded)):
            print(f"{name}: {json.dumps(found)}")
        print("C2 holds" if not wrong else f"C2 does NOT hold: {'; '.join(wrong)}")
    return 1 if wrong else 0


def measure(options: argparse.Namespace, count: int) -> dict[str, Any]:
    counting = Counting(
        streams=options.capacity, tokens_per_s=options.tokens_per_s, queue_requests_max=0
    )
    with STARTS[options.server](counting) as server:
        crowd = Crowd(server.port)
        with load_client.start(
            "probe", server.port, path="/health/live", connections=16,
            probes_per_s=PROBES_PER_S, run_s=options.ramp_s + options.hold_s,
        ) as probe:  # fmt: skip
            crowd.run(count, options.ramp_s, options.hold_s)
            health = probe.report()
    told = {f"health_{name}": health[f"latency_{name}"] for name in ("p50_ms", "p99_ms")}
    found = crowd.report() | told | {"health_errors": health["errors"]}
    return {name: round(each, 2) if isinstance(each, float) else each
            for name, each in found.items()}  # fmt: skip


def judge(alone: dict[str, Any], crowded: dict[str, Any], capacity: int) -> list[str]:
    """What does not hold."""
    refused, wrong = crowded["refused"], []
    if alone["admitted"] != capacity or crowded["admitted"] != capacity:
        wrong.append(f"{alone['admitted']} and {crowded['admitted']} admitted, not {capacity}")
    if refused["otherwise"] or sum(refused.values()) != crowded["offered"] - crowded["admitted"]:
        wrong.append(f"refused: {refused}")
    if crowded["refused_slowest_ms"] > 1000 * REFUSED_S_MAX:
        wrong.append(f"a refusal took {crowded['refused_slowest_ms']} ms")
    allowed_ms = alone["first_token_p95_ms"] * FIRST_TOKEN_MORE + FIRST_TOKEN_MORE_MS
    if not crowded["first_token_p95_ms"] <= allowed_ms:
        wrong.append(f"first token p95 {crowded['first_token_p95_ms']} ms")
    if crowded["health_errors"] or crowded["health_p99_ms"] > HEALTH_P99_MS:
        wrong.append(f"health p99 {crowded['health_p99_ms']} ms")
    return wrong


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=("rbee", "rbee-no-lane"), default="rbee")
    parser.add_argument("--offered", type=int, default=5000)
    parser.add_argument("--capacity", type=int, default=2000)
    parser.add_argument("--ramp-s", type=float, default=5.0, help="all clients come in it")
    parser.add_argument("--hold-s", type=float, default=3.0, help="a round goes on so long then")
    parser.add_argument("--tokens-per-s", type=float, default=2.0, help="of each stream")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
