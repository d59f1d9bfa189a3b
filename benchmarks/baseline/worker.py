"""A worker of the baseline: a steady pace, one message per step with the deltas of all streams,
or one per token, which is what comes of a task for each stream.

It keeps the pace as rbee's synthetic engine does: all streams tick together, requests join
between two steps and have their first token at once, and after a delay the next steps come
sooner until the pace is kept on average, up to one second.
"""

import argparse
import os
import time
from typing import Final

import msgspec
import zmq
from wire import Cancel, Delta, Generate, encoder

CATCH_UP_S: Final = 1.0
MESSAGES_MAX: Final = 8  # steps that a slow supervisor may be behind

_decoder: Final = msgspec.msgpack.Decoder(Generate | Cancel)


def work(address: str, tokens_per_s: float, *, message_per_token: bool) -> None:
    """Generate until standard input ends, which it does with the supervisor."""
    context = zmq.Context()
    link = context.socket(zmq.DEALER)
    link.setsockopt(zmq.LINGER, 0)
    link.setsockopt(zmq.SNDHWM, MESSAGES_MAX)
    link.connect(address)
    poller = zmq.Poller()
    poller.register(link, zmq.POLLIN)
    poller.register(0, zmq.POLLIN)
    running: dict[int, list[int]] = {}  # request -> next number, tokens_max
    period_s, tick_s = 1 / tokens_per_s, time.monotonic()
    link.send(b"ready")

    def tell(deltas: list[Delta]) -> None:
        for each in [[delta] for delta in deltas] if message_per_token else [deltas]:
            link.send(encoder.encode(each))

    while True:
        readable = dict(poller.poll(0 if running else None))
        if 0 in readable and not os.read(0, 1):
            return
        if link in readable:
            if not running:
                tick_s = max(tick_s, time.monotonic() + period_s)
            if begun := _obey(link, running):
                tell(_step(running, begun))
        if running:  # what comes in during a step is seen after it, as an engine would
            time.sleep(max(0.0, tick_s - time.monotonic()))
            now_s = time.monotonic()
            tick_s = max(tick_s + period_s, now_s - CATCH_UP_S)
            tell(_step(running, list(running)))


def _obey(link: "zmq.Socket[bytes]", running: dict[int, list[int]]) -> list[int]:
    """Take what has come. Returns: the requests that begin."""
    begun: list[int] = []
    while int(link.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        match _decoder.decode(link.recv()):
            case Generate(request_id=request_id, tokens_max=tokens_max):
                running[request_id] = [0, tokens_max]
                begun.append(request_id)
            case Cancel(request_id=request_id):
                running.pop(request_id, None)
    return [each for each in begun if each in running]


def _step(running: dict[int, list[int]], requests: list[int]) -> list[Delta]:
    """One token for each of ``requests``."""
    deltas = []
    for request_id in requests:
        state = running[request_id]
        number, tokens_max = state
        state[0] = number + 1
        if number + 1 == tokens_max:
            del running[request_id]
            deltas.append(Delta(request_id, f"{number} ", "length"))
        else:
            deltas.append(Delta(request_id, f"{number} "))
    return deltas


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--tokens-per-s", type=float, required=True)
    parser.add_argument("--message-per-token", action="store_true")
    arguments = parser.parse_args()
    work(
        arguments.address,
        arguments.tokens_per_s,
        message_per_token=arguments.message_per_token,
    )
