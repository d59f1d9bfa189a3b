"""Whoever else opens the socket of a link: nothing of theirs arrives, and the worker's does.

RBEE_GREETINGS=10000 has so many strangers call.
"""

import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trio
import zmq

from rbee.errors import RemoteProtocolError
from rbee.supervisor.launch import Launcher
from rbee.supervisor.run_dir import RunDir
from rbee.transport.link import Link, LinkFactory
from rbee.transport.thread_link import ThreadLink
from rbee.wire import BODY_BYTES_MAX, decode_from_worker
from tests.link.test_link import worker_sends
from tests.supervisor.fakes import NoLog
from tests.supervisor.test_launch import QUICK, Spawner, wait_line

GREETINGS = int(os.environ.get("RBEE_GREETINGS", "1000"))
GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL" + bytes(16) + b"\0" + bytes(31)
READY = b"\x04\x26\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x04spy!"

# What one stranger may leave in memory, at most: 16 MiB over all.
GROWTH_BYTES_MAX = 16 * 1024 * 1024


def greetings(count: int) -> Iterator[bytes]:
    chance = random.Random(4711)
    huge = b"\x02" + (1 << 30).to_bytes(8, "big")  # a frame that announces a GiB
    for number in range(count):
        noise = chance.randbytes(chance.randrange(1, 600))
        yield (noise, GREETING + noise, GREETING + READY + noise, GREETING + READY + huge + noise)[
            number % 4
        ]


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[LinkFactory]:
    factory = LinkFactory(tmp_path)
    yield factory
    factory.close()


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that says hello on the socket whose path it is told."""
    script = (
        "import sys, zmq; s = zmq.Context().socket(zmq.DEALER);"
        "s.connect('ipc://' + sys.stdin.readline().strip()); s.send(b'hello');"
        "sys.stdin.readline()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def call(path: Path, said: bytes) -> bytes:
    """Say something as a stranger; what is answered."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(str(path))
        try:
            stranger.sendall(said)
            return stranger.recv(100)
        except (ConnectionResetError, BrokenPipeError):
            return b""


async def test_no_stranger_is_even_greeted_and_the_worker_is_heard_after_them(
    worker: subprocess.Popen[bytes], factory: LinkFactory
) -> None:
    link, path = factory.open("w", worker.pid)
    resident = psutil.Process().memory_info().rss
    for said in greetings(GREETINGS):
        assert call(path, said) == b""
    assert link.receive_nowait() is None
    assert psutil.Process().memory_info().rss - resident <= GROWTH_BYTES_MAX
    assert worker.stdin is not None
    worker.stdin.write(b"%b\n" % bytes(path))
    worker.stdin.flush()
    with trio.fail_after(10):
        assert await link.receive() == [b"hello"]
    link.close()


def refuse_all(link: Link) -> None:
    while (frames := link.receive_nowait()) is not None:
        with pytest.raises(RemoteProtocolError):
            decode_from_worker(frames)


async def test_what_our_own_peer_may_send_is_a_message_or_a_protocol_error(
    factory: LinkFactory,
) -> None:
    # A worker that has gone mad is the worker's process: ZeroMQ lets it in.
    link, path = factory.open("w", os.getpid())
    resident = psutil.Process().memory_info().rss
    for said in greetings(GREETINGS // 2):
        with socket.socket(socket.AF_UNIX) as mad:
            mad.connect(str(path))
            mad.sendall(said)
        refuse_all(link)
    await trio.sleep(0.1)
    refuse_all(link)
    assert psutil.Process().memory_info().rss - resident <= GROWTH_BYTES_MAX
    worker = ThreadLink(path)  # it has a peer still
    assert worker_sends(worker, [b"x" * 100])
    worker.close()
    link.close()


async def test_a_message_over_the_limit_is_not_read(factory: LinkFactory) -> None:
    link, path = factory.open("w", os.getpid())
    assert link._socket._socket.getsockopt(zmq.MAXMSGSIZE) == BODY_BYTES_MAX  # type: ignore[attr-defined]
    assert link._socket._socket.getsockopt(zmq.LINGER) == 0  # type: ignore[attr-defined]
    announced = b"\x02" + (1 << 30).to_bytes(8, "big") + bytes(100_000)
    call(path, GREETING + READY + announced)
    with trio.move_on_after(0.2):
        pytest.fail(f"{await link.receive()} was taken")
    link.close()


def open_by(launch: Launcher) -> list[str]:
    return [path.name for path in launch.links._directory.iterdir()]


async def test_a_workers_socket_has_a_name_that_nobody_can_guess_and_is_bound_for_it(
    tmp_path: Path,
) -> None:
    class Watched(LinkFactory):
        def open(self, name: str, peer_pid: int) -> tuple[Link, Path]:
            opened.append((name, peer_pid))
            return super().open(name, peer_pid)

    opened: list[tuple[str, int]] = []
    log, factory = NoLog(), Watched(tmp_path)
    launch = Launcher(factory, QUICK, trio.Event(), log, Spawner("time.sleep(60)"))
    pids = []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            child = await nursery.start(launch, "w-0")
            await wait_line(log, "through the gate")
            pids.append(child.pid)
            assert open_by(launch) == [opened[-1][0]]
            nursery.cancel_scope.cancel()
    assert [pid for _, pid in opened] == pids
    names = [name for name, _ in opened]
    assert len(set(names)) == 2
    assert all(len(name.removeprefix("w-")) == 12 for name in names)  # 48 random bits
    assert open_by(launch) == []
    factory.close()


async def test_a_stolen_bind_gets_no_message_of_ours(factory: LinkFactory) -> None:
    # Only our own uid can do it, as the folder is closed to others. The thief has the name then;
    # what the supervisor sends goes where it listens, so to nobody.
    link, path = factory.open("w", os.getpid() + 1)
    context = zmq.Context[zmq.Socket[bytes]]()
    thief = context.socket(zmq.DEALER)
    thief.bind(f"ipc://{path}")
    worker = ThreadLink(path)
    assert worker_sends(worker, [b"hello"])
    assert thief.poll(5000)
    assert link.receive_nowait() is None
    worker.close()
    thief.close(0)
    context.term()
    link.close()


def test_the_run_directory_is_locked_before_anything_is_bound_in_it(tmp_path: Path) -> None:
    with RunDir(tmp_path / "run") as run_dir:
        assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700
        assert [path.name for path in run_dir.path.iterdir()] == ["lock"]
