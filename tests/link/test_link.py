"""The link over ZeroMQ: no wake-up is lost, no sender waits, the limits hold."""

import os
from pathlib import Path

import pytest
import trio
import zmq

from rbee.errors import LinkFullError
from rbee.transport.link import SEND_MESSAGES_MAX, Link, LinkFactory
from rbee.transport.thread_link import ThreadLink
from rbee.wire import BODY_BYTES_MAX


class EdgeSocket:
    """A socket whose descriptor tells of a message once, as ZeroMQ's does.

    ``fileno`` is a pipe that becomes readable with the edge; any call on the socket eats it.
    """

    def __init__(self) -> None:
        self._signal_read, self._signal_write = trio.socket.socketpair()
        self.messages: list[list[bytes]] = []

    def arrive(self, frames: list[bytes], *, edge: bool) -> None:
        self.messages.append(frames)
        if edge:
            self._signal_write._sock.send(b"!")

    def send_multipart(self, frames: list[bytes]) -> None:
        self.eat_edge()

    def recv_multipart(self) -> list[bytes]:
        self.eat_edge()
        if not self.messages:
            raise zmq.Again
        return self.messages.pop(0)

    def is_readable(self) -> bool:
        return bool(self.messages)

    def eat_edge(self) -> None:
        self._signal_read._sock.setblocking(False)
        try:
            self._signal_read._sock.recv(100)
        except BlockingIOError:
            return

    def fileno(self) -> int:
        return self._signal_read.fileno()

    def close(self) -> None:
        self._signal_read.close()
        self._signal_write.close()


async def test_a_send_that_eats_the_edge_wakes_the_parked_receiver(
    autojump_clock: trio.testing.MockClock,
) -> None:
    socket = EdgeSocket()
    link = Link(socket)
    got: list[list[bytes]] = []

    async def receive() -> None:
        got.append(await link.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        # The message comes while the receiver is parked; before the scheduler looks at the
        # descriptor, a send on the same socket swallows its edge.
        socket.arrive([b"m"], edge=True)
        link.send([b"out"])
        with trio.fail_after(1):
            while not got:
                await trio.lowlevel.checkpoint()
    assert got == [[b"m"]]
    socket.close()


async def test_a_message_whose_edge_went_before_parking_is_received(
    autojump_clock: trio.testing.MockClock,
) -> None:
    socket = EdgeSocket()
    link = Link(socket)
    socket.arrive([b"m"], edge=False)
    with trio.fail_after(1):
        assert await link.receive() == [b"m"]
    socket.close()


async def test_cancelling_receive_loses_no_message() -> None:
    socket = EdgeSocket()
    link = Link(socket)
    with trio.move_on_after(0):
        await link.receive()
    socket.arrive([b"m"], edge=True)
    assert await link.receive() == [b"m"]
    socket.close()


async def test_closing_a_link_ends_its_parked_receiver(tmp_path: Path) -> None:
    factory = LinkFactory(tmp_path)
    link, _ = factory.open("w", os.getpid())
    ended: list[bool] = []

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await link.receive()
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        link.close()
    assert ended
    with pytest.raises(LinkFullError):
        link.send([b"x"])
    factory.close()


async def test_two_receivers_on_one_link_are_a_bug() -> None:
    socket = EdgeSocket()
    link = Link(socket)
    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="two tasks")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.receive)
            nursery.start_soon(link.receive)
    socket.close()


async def test_frames_cross_a_real_link_both_ways_in_order(tmp_path: Path) -> None:
    factory = LinkFactory(tmp_path)
    link, path = factory.open("w", os.getpid())
    worker = ThreadLink(path)
    try:
        assert worker_sends(worker, [b"hello"])  # there is nobody to send to before that
        assert await link.receive() == [b"hello"]
        for number in range(1000):
            link.send([b"%d" % number])
            assert worker_sends(worker, [b"r%d" % number])
            with trio.fail_after(5):
                assert await link.receive() == [b"r%d" % number]
        got = [worker_receives(worker) for _ in range(1000)]
        assert got == [[b"%d" % number] for number in range(1000)]
    finally:
        worker.close()
        link.close()
        factory.close()


def worker_sends(worker: ThreadLink, frames: list[bytes]) -> bool:
    for _ in range(100):
        if worker.send_nowait(frames):
            return True
        worker.wait(0.1, wants_to_send=True)
    return False


def worker_receives(worker: ThreadLink) -> list[bytes] | None:
    for _ in range(100):
        frames = worker.receive_nowait()
        if frames is not None:
            return frames
        worker.wait(0.1, wants_to_send=False)
    return None


async def test_a_worker_that_takes_nothing_fills_the_link_and_send_says_so(tmp_path: Path) -> None:
    factory = LinkFactory(tmp_path)
    link, path = factory.open("w", os.getpid())
    with pytest.raises(LinkFullError):
        link.send([b"x"])  # nobody is there yet
    worker = ThreadLink(path)
    assert worker_sends(worker, [b"hello"])
    assert await link.receive() == [b"hello"]
    sent = send_until_full(link)
    # What fits is what either end may hold, and what lies between them in the kernel.
    assert SEND_MESSAGES_MAX <= sent < 4 * SEND_MESSAGES_MAX
    worker.close()
    link.close()
    factory.close()


def send_until_full(link: Link) -> int:
    payload = [bytes(4096)]
    for sent in range(100 * SEND_MESSAGES_MAX):
        try:
            link.send(payload)
        except LinkFullError:
            return sent
    raise AssertionError("the link took everything")


async def test_an_oversized_message_never_reaches_the_supervisor(tmp_path: Path) -> None:
    factory = LinkFactory(tmp_path)
    link, path = factory.open("w", os.getpid())
    worker = ThreadLink(path)
    try:
        assert worker_sends(worker, [bytes(BODY_BYTES_MAX + 1)])
        with trio.move_on_after(0.5) as waited:
            await link.receive()
        assert waited.cancelled_caught
    finally:
        worker.close()
        link.close()
        factory.close()
