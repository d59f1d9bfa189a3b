"""Faults of clients: slow, silent, half gone, gone, and very many."""

import json
import os
import signal
from typing import Final
from urllib.parse import urlsplit

import trio

from rbee.chaos.engine_faults import PROMPT
from rbee.chaos.scene import Scene
from rbee.chaos.server import DrillError

MANY: Final = 1000
SOME: Final = 20
HELD_S: Final = 3.0
HALF_CLOSED_S: Final = 30.0
RECEIVE_BYTES: Final = 4096  # a small window: what is not read stays at the server


async def vanish(scene: Scene) -> None:
    """A thousand clients ask, and hang up at once, in the middle of their answers."""
    await _ask_and_hold(scene, MANY, tokens=400, hold_s=1.0)
    scene.strike()


async def idle(scene: Scene) -> None:
    """A thousand connections on which nothing is said."""
    streams = [await _connect(scene) for _ in range(MANY)]
    scene.strike()
    await trio.sleep(HELD_S)
    for stream in streams:
        stream.socket.close()


async def read_nothing(scene: Scene) -> None:
    """Clients ask for long answers, and read nothing of them."""
    scene.strike()
    await _ask_and_hold(scene, SOME, tokens=3000, hold_s=HELD_S)


async def write_slowly(scene: Scene) -> None:
    """Clients that send their heads and bodies byte by byte."""
    scene.strike()
    async with trio.open_nursery() as nursery:
        for number in range(SOME):
            nursery.start_soon(_drip, scene, number % 2 == 0)


async def half_close(scene: Scene) -> None:
    """Clients that close their sending side after the request, and want the answer."""
    scene.strike()
    async with trio.open_nursery() as nursery:
        for _ in range(SOME):
            nursery.start_soon(_ask_half_closed, scene)


async def stop_before_slow_readers(scene: Scene) -> None:
    """SIGTERM while clients wait for long answers and read nothing."""
    streams = [await _ask(scene, 3000) for _ in range(SOME)]
    await scene.moment()
    scene.strike()
    scene.server.signal(signal.SIGTERM)
    scene.clients.stop()
    await scene.server.wait_ended(20)
    for stream in streams:
        stream.socket.close()


async def nonsense(scene: Scene) -> None:
    """Connections that send random bytes, and halves of requests."""
    scene.strike()
    for number in range(100):
        stream = await _connect(scene)
        whole = _request(40)
        cut = scene.chance.randrange(len(whole))
        data = os.urandom(200) if number % 2 else whole[:cut]
        await stream.send_all(data)
        stream.socket.close()


async def poison(scene: Scene) -> None:
    """A request that crashes its workers: refused after two, and at once when it comes again."""
    await scene.moment()
    await scene.trigger(PROMPT, "request_quarantined")
    await scene.trigger(PROMPT, "request_quarantined")


async def _ask_and_hold(scene: Scene, count: int, *, tokens: int, hold_s: float) -> None:
    streams = [await _ask(scene, tokens) for _ in range(count)]
    await trio.sleep(hold_s)
    for stream in streams:
        stream.socket.close()


async def _ask(scene: Scene, tokens: int) -> trio.SocketStream:
    stream = await _connect(scene)
    await stream.send_all(_request(tokens))
    return stream


async def _connect(scene: Scene) -> trio.SocketStream:
    parts = urlsplit(scene.server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    plain = trio.socket.socket()
    plain.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, RECEIVE_BYTES)
    await plain.connect((parts.hostname, parts.port))
    return trio.SocketStream(plain)


def _request(tokens: int) -> bytes:
    body = {"model": "first", "prompt": "count", "max_tokens": tokens, "stream": True}
    payload = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


async def _drip(scene: Scene, in_head: bool) -> None:
    """Byte by byte, from the head or from the body on; hangs up unanswered."""
    stream = await _connect(scene)
    whole = _request(40)
    at_once = 0 if in_head else whole.index(b"\r\n\r\n") + 4
    try:
        await stream.send_all(whole[:at_once])
        for at in range(at_once, at_once + 25):
            await stream.send_all(whole[at : at + 1])
            await trio.sleep(HELD_S / 25)
    except trio.BrokenResourceError:  # the server has lost patience: it may
        pass
    finally:
        stream.socket.close()


async def _ask_half_closed(scene: Scene) -> None:
    """Half a close may count as hanging up: some answer, or the connection's end; not for ever."""
    stream = await _connect(scene)
    try:
        await stream.send_all(_request(40))
        await stream.send_eof()
        with trio.fail_after(HALF_CLOSED_S):
            while await stream.receive_some(65_536):
                pass
    except trio.BrokenResourceError:
        pass
    except trio.TooSlowError:
        raise DrillError(f"a half-closed client was held for {HALF_CLOSED_S:g} s") from None
    finally:
        stream.socket.close()
