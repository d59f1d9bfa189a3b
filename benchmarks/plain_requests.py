"""Short requests without streaming, one after the other on kept connections: requests/s and p95.

A closed loop: each connection sends its next request when it has the answer to the last. The
workers generate one token at a pace that does not count. `rbee serve` and the baseline take
turns, each round with a fresh server.
"""

import argparse
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import usage
from figures import median, percentile
from servers import HOST, Running, baseline, rbee
from streams import count_request
from synthetic import synthetic_config

TOKENS_PER_S = 1000.0  # of each worker: a step is 1 ms


@dataclass(frozen=True, slots=True)
class PlainRound:
    """One server, one round."""

    requests_per_s: float
    p50_ms: float
    p95_ms: float
    supervisor_us: float  # CPU per request
    client_share: float  # of one core
    errors: int


def main() -> int:
    options = _options()
    config = synthetic_config(options.workers, options.connections, TOKENS_PER_S)
    starts: dict[str, Callable[[], AbstractContextManager[Running]]] = {
        "rbee": lambda: rbee(config),
        "baseline": lambda: baseline(options.workers, TOKENS_PER_S),
    }
    rounds: dict[str, list[PlainRound]] = {name: [] for name in starts}
    for number in range(options.rounds):
        for name in starts if number % 2 == 0 else reversed(starts):
            with starts[name]() as server:
                rounds[name].append(measure(server, options.connections, options.measure_s))
            print(f"round {number + 1}, {name}: {rounds[name][-1]}", file=sys.stderr, flush=True)
    print(_table(rounds, options.connections))
    return 0


def measure(server: Running, connections: int, measure_s: float) -> PlainRound:
    loop = ClosedLoop(server.port, connections)
    try:
        loop.run(1.0)  # warm
        loop.latencies_s.clear()
        supervisor_s, client_s = usage.cpu_s(server.pid), time.process_time()
        begun_s = time.monotonic()
        loop.run(measure_s)
        elapsed_s = time.monotonic() - begun_s
        supervisor_s = usage.cpu_s(server.pid) - supervisor_s
        client_s = time.process_time() - client_s
    finally:
        loop.close()
    answered = len(loop.latencies_s)
    return PlainRound(
        requests_per_s=answered / elapsed_s,
        p50_ms=1000 * percentile(loop.latencies_s, 50),
        p95_ms=1000 * percentile(loop.latencies_s, 95),
        supervisor_us=1e6 * supervisor_s / max(answered, 1),
        client_share=client_s / elapsed_s,
        errors=loop.errors,
    )


class ClosedLoop:
    """Connections that each always have one request under way."""

    def __init__(self, port: int, connections: int) -> None:
        self.latencies_s: list[float] = []
        self.errors = 0
        self._request = count_request(HOST, port, 1, stream=False)
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sent_s: dict[int, float] = {}
        self._received: dict[int, bytes] = {}
        for _ in range(connections):
            sock = socket.create_connection((HOST, port), timeout=5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def run(self, duration_s: float) -> None:
        """Go round for a while, and let the last requests be answered."""
        end_s = time.monotonic() + duration_s
        for descriptor in self._sockets:
            self._send(descriptor)
        while self._sent_s and time.monotonic() < end_s + 10:
            for descriptor, _ in self._epoll.poll(0.05):
                if self._take(descriptor) and time.monotonic() < end_s:
                    self._send(descriptor)

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._epoll.close()

    def _send(self, descriptor: int) -> None:
        self._received[descriptor] = b""
        self._sent_s[descriptor] = time.monotonic()
        self._sockets[descriptor].send(self._request)

    def _take(self, descriptor: int) -> bool:
        """Whether the answer is complete, and the connection may go on."""
        try:
            data = self._sockets[descriptor].recv(65536)
        except OSError:
            data = b""
        received = self._received[descriptor] + data
        self._received[descriptor] = received
        if data and not _is_complete(received):
            return False
        sent_s = self._sent_s.pop(descriptor)
        if data and received.startswith(b"HTTP/1.1 200"):
            self.latencies_s.append(time.monotonic() - sent_s)
            return True
        self.errors += 1
        if not data:
            self._epoll.unregister(descriptor)
            self._sockets.pop(descriptor).close()
        return bool(data)


def _is_complete(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    _, _, after = head.lower().partition(b"content-length:")
    length = int(after.split(b"\r\n", 1)[0])
    return len(body) >= length


def _table(rounds: dict[str, list[PlainRound]], connections: int) -> str:
    rows = (
        ("requests/s", "requests_per_s", "{:.0f}"),
        ("p50, ms", "p50_ms", "{:.1f}"),
        ("p95, ms", "p95_ms", "{:.1f}"),
        ("supervisor CPU per request, us", "supervisor_us", "{:.0f}"),
        ("client, part of a core", "client_share", "{:.2f}"),
        ("errors", "errors", "{:.0f}"),
    )
    lines = [f"| {connections} connections | rbee | baseline | ratio |", "|---|---:|---:|---:|"]
    for title, field, form in rows:
        ours, theirs = (
            median([getattr(each, field) for each in found]) for found in rounds.values()
        )
        ratio = f"{ours / theirs:.2f}" if theirs else ""
        lines.append(f"| {title} | {form.format(ours)} | {form.format(theirs)} | {ratio} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--measure-s", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
