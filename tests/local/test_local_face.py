"""The local face of a real server: who comes in, what it bears, and how it ends."""

import contextlib
import json
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
import trio.testing

from rbee.client import AnswerError, Client, ServerGoneError
from rbee.config import ServerConfig
from rbee.errors import RunDirError
from rbee.local_wire import End, Head, Part, Request
from rbee.supervisor.access.principal import Limits
from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.local import LocalSocket, serve_local
from rbee.supervisor.local.exchange import as_bytes
from rbee.supervisor.local.face import CLIENTS_MAX, is_let_in
from tests.api.face import LogLines
from tests.e2e.server import Server, serving, synthetic_config, wait_until
from tests.local.raw import HELLO, RawClient, connect, request
from tests.specs.access_room import keep

GARBAGE_CLIENTS = 300
CHAT = "/v1/chat/completions"
ASK = {"model": "synthetic", "messages": [{"role": "user", "content": "hello"}]}


def chat(tokens: int, **more: object) -> bytes:
    return json.dumps({**ASK, "max_tokens": tokens, **more}).encode()


def counted(tokens: int) -> str:
    """What the synthetic engine says."""
    return "".join(f"{number} " for number in range(tokens))


@contextmanager
def raw_client(server: Server) -> Iterator[RawClient]:
    client = RawClient(server.run_dir / "client.sock")
    yield client
    client.close()


def test_programs_of_our_user_and_of_root_are_let_in() -> None:
    assert is_let_in(0)
    assert is_let_in(os.geteuid())
    assert not is_let_in(os.geteuid() + 1)


def test_requests_that_came_together_are_answered_one_after_the_other(server: Server) -> None:
    with raw_client(server) as client:
        for tokens in (3, 2, 1):
            client.ask(Request("POST", CHAT), chat(tokens))
        for tokens in (3, 2, 1):
            assert isinstance(client.hear(), Head)
            part = client.hear()
            assert isinstance(part, Part)
            assert json.loads(part.data)["usage"]["completion_tokens"] == tokens
            assert client.hear() == End()


def test_a_client_that_goes_in_the_middle_of_anything_harms_nobody(server: Server) -> None:
    asked = HELLO + request(Request("POST", CHAT), chat(400, stream=True))
    for size in range(0, len(asked) + 1, 7):
        sock = connect(server.run_dir / "client.sock")
        sock.sendall(asked[:size])
        sock.close()
    assert_well(server)


def garbage(count: int) -> Iterator[bytes]:
    chance = random.Random(4711)
    good = HELLO + request(Request("POST", CHAT), chat(2))
    for number in range(count):
        noise = chance.randbytes(chance.randrange(1, 3000))
        cut = chance.randrange(len(good))
        huge = HELLO + b"\x01\x0crbee-local/1\x03" + (1 << 62).to_bytes(8, "big") + noise
        yield (noise, HELLO + noise, good[:cut] + noise, huge)[number % 4]


def test_garbage_by_the_hundred_ends_its_own_connections_only(server: Server) -> None:
    descriptors = psutil.Process(server.pid).num_fds()
    with Client(server.run_dir) as client:
        stream = client.chat(ASK["messages"], model="synthetic", max_tokens=400, stream=True)  # type: ignore[arg-type]
        for said in garbage(GARBAGE_CLIENTS):
            with connect(server.run_dir / "client.sock") as sock:
                try:
                    sock.sendall(said)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65536):
                        pass
                except (BrokenPipeError, ConnectionResetError):
                    continue
        assert "".join(delta.text for delta in stream) == counted(400)
    wait_until(
        lambda: psutil.Process(server.pid).num_fds() <= descriptors, 10, "descriptors are back"
    )
    assert_well(server)


def assert_well(server: Server) -> None:
    with Client(server.run_dir) as client:
        assert client.complete("a", model="synthetic", max_tokens=2).text == "0 1 "
    assert server.get("/health/ready").status_code == 200
    assert not [event for event in server.events if event["level"] == "error"]


def test_over_the_cap_an_idle_client_makes_room(server: Server) -> None:
    idle = [RawClient(server.run_dir / "client.sock") for _ in range(CLIENTS_MAX)]
    assert_well(server)
    assert idle[0].is_closed()
    for each in idle:
        each.close()
    server.wait_event("local_clients_full")


def test_without_a_descriptor_for_it_a_client_waits_and_the_server_goes_on(server: Server) -> None:
    process = psutil.Process(server.pid)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
    with connect(server.run_dir / "client.sock") as sock:
        try:
            server.wait_event("accept_failed", error="EMFILE", face="local")
        finally:
            process.rlimit(psutil.RLIMIT_NOFILE, limits)
        sock.sendall(HELLO)
        assert sock.recv(1) == b"\xff"
    assert_well(server)


def test_who_reads_or_speaks_too_slowly_is_cut(tmp_path: Path) -> None:
    head = "[server]\nparked_bytes_max = 4096\nbody_timeout_s = 0.5\n"
    config = synthetic_config(head=head, synthetic="context_length = 200000")
    config = config.replace("tokens_per_s = 200\n", "tokens_per_s = 100000\n")
    with (
        serving(tmp_path, config) as server,
        raw_client(server) as half,
        raw_client(server) as slow,
    ):
        half.sock.sendall(request(Request("POST", CHAT), chat(2))[:50])
        assert half.is_closed()
        asked = Request("POST", CHAT, correlation_id="slow")
        slow.ask(asked, chat(100_000, stream=True))
        done = server.wait_event("request_done", 20, correlation_id="slow")
        assert done["outcome"] == "slow_client"
        assert done["completion_tokens"] < 100_000
        with pytest.raises((EOFError, ConnectionResetError)):
            list(iter(slow.hear, End()))
        assert_well(server)


def test_where_keys_are_asked_for_they_are_asked_for_here(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    user, limited = keep(state_dir), keep(state_dir, limits=Limits(requests_per_minute=1))
    viewer = keep(state_dir, "viewer")
    head = f'[server]\nstate_dir = "{state_dir}"\n'
    with serving(tmp_path, synthetic_config(head=head)) as server:
        for key, code, status in (
            ("", "invalid_api_key", 401),
            ("none", "invalid_api_key", 401),
            (viewer, "permission_denied", 403),
        ):
            with Client(server.run_dir, key=key) as client, pytest.raises(AnswerError) as refused:
                client.complete("a", model="synthetic")
            assert (refused.value.code, refused.value.status) == (code, status)
        with Client(server.run_dir) as client:
            assert client.health() == "ok"
        with Client(server.run_dir, key=user) as client:
            assert client.complete("a", model="synthetic", max_tokens=2).text == "0 1 "
        with Client(server.run_dir, key=limited) as client:
            body = {"model": "synthetic", "prompt": "a", "max_tokens": 1}
            first = client.request("POST", "/v1/completions", body)
            assert first.fields["x-ratelimit-limit-requests"] == "1"
            with pytest.raises(AnswerError) as refused:
                client.complete("a", model="synthetic")
            assert refused.value.code == "rate_limited"
            assert refused.value.retry_after_s is not None


def test_a_stream_goes_on_when_its_worker_is_killed(tmp_path: Path) -> None:
    with (
        serving(tmp_path, synthetic_config(model="slots = 2")) as server,
        Client(server.run_dir) as client,
    ):
        stream = client.chat(ASK["messages"], model="synthetic", max_tokens=200, stream=True)  # type: ignore[arg-type]
        texts = [next(stream).text]
        busy = [worker["pid"] for worker in server.workers() if worker["requests"]]
        for pid in busy:
            os.kill(pid, signal.SIGKILL)
        texts += [delta.text for delta in stream]
        assert "".join(texts) == counted(200)
        done = server.wait_event("request_done", correlation_id=stream.correlation_id)
        assert done["failovers"] == 1


def test_shutdown_gives_an_open_stream_its_end_and_refuses_what_is_new(tmp_path: Path) -> None:
    config = synthetic_config(head="[server]\ndrain_s = 1.0\n")
    with serving(tmp_path, config) as server, Client(server.run_dir) as client:
        stream = client.chat(ASK["messages"], model="synthetic", max_tokens=4000, stream=True)  # type: ignore[arg-type]
        short = client.chat(ASK["messages"], model="synthetic", max_tokens=40, stream=True)  # type: ignore[arg-type]
        next(stream)
        server.signal(signal.SIGTERM)
        server.wait_event("shutdown_begun")
        with pytest.raises(AnswerError) as refused:
            client.complete("a", model="synthetic")
        assert (refused.value.code, refused.value.status) == ("draining", 503)
        assert "".join(delta.text for delta in short) == counted(40)
        with pytest.raises(AnswerError) as ended:
            list(stream)
        assert ended.value.code == "draining"
        assert server.process.wait(15) == 0
        assert not server.run_dir.exists()
        with pytest.raises(ServerGoneError):
            client.health()


async def test_who_is_connected_when_shutdown_begins_is_answered(tmp_path: Path) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    shutdown = trio.Event()
    shutdown.set()
    with LocalSocket(tmp_path) as local, connect(local.path) as sock:
        sock.sendall(HELLO + request(Request("GET", "/")))
        with trio.fail_after(5):
            await serve_local(
                app, local, ServerConfig(), HttpLimits(), log=LogLines(), shutdown=shutdown
            )
        assert list(tmp_path.iterdir()) == []
        told = b"".join(iter(lambda: sock.recv(65536), b""))
    assert told.endswith(as_bytes(Head(200, {})) + as_bytes(Part(b"{}")) + as_bytes(End()))


async def test_shutdown_answers_who_asks_again_right_after_an_answer(tmp_path: Path) -> None:
    may_answer, shutdown = trio.Event(), trio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def serve(local: LocalSocket, *, task_status: trio.TaskStatus[None]) -> None:
        await serve_local(
            app, local, ServerConfig(), HttpLimits(), log=LogLines(), shutdown=shutdown,
            task_status=task_status,
        )  # fmt: skip

    with LocalSocket(tmp_path) as local, connect(local.path) as sock, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, local)
            sock.sendall(HELLO + request(Request("GET", "/")))
            await trio.testing.wait_all_tasks_blocked(0.02)
            shutdown.set()
            await trio.testing.wait_all_tasks_blocked(0.02)
            may_answer.set()
            await trio.sleep(0.2)
            sock.sendall(request(Request("GET", "/")))
        told = b"".join(iter(lambda: sock.recv(65536), b""))
    answer = as_bytes(Head(200, {})) + as_bytes(Part(b"{}")) + as_bytes(End())
    assert told.endswith(answer * 2)


def test_shutdown_waits_for_no_client_that_does_not_read(tmp_path: Path) -> None:
    config = synthetic_config(head="[server]\ndrain_s = 0.2\n")
    with serving(tmp_path, config) as server, raw_client(server) as client:
        client.ask(Request("POST", CHAT), chat(4000, stream=True))
        assert isinstance(client.hear(), Head)
        others = [RawClient(server.run_dir / "client.sock") for _ in range(3)]
        others[1].sock.sendall(request(Request("POST", CHAT), chat(2))[:50])
        others[2].sock.sendall(b"\x04\x07\x04PING\0\0" * 2000)
        assert server.stop(15) == 0
        for each in others[:2]:
            assert each.is_closed()
        for each in others:
            each.close()


def test_without_the_local_face_there_is_no_socket(tmp_path: Path) -> None:
    with serving(tmp_path, synthetic_config(head="[server]\nlocal = false\n")) as server:
        assert not (server.run_dir / "client.sock").exists()
        with Client(server.run_dir) as client, pytest.raises(ServerGoneError):
            client.health()


def test_a_socket_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    with LocalSocket(tmp_path) as local:
        assert not local.mend()
        local.path.unlink()
        assert local.mend()
        with connect(local.path):
            local.listener.accept()[0].close()
        assert not local.mend()
    assert list(tmp_path.iterdir()) == []
    local.path.write_text("somebody else's")
    with pytest.raises(RunDirError, match="cannot be made"), local:
        pytest.fail("it took the place of another file")
    assert local.path.exists()


def test_as_many_as_may_come_at_once_wait_to_be_accepted(tmp_path: Path) -> None:
    with LocalSocket(tmp_path) as local, contextlib.ExitStack() as clients:
        for _ in range(CLIENTS_MAX):
            clients.enter_context(connect(local.path, timeout_s=0))
        local.listener.setblocking(False)
        for _ in range(CLIENTS_MAX):
            clients.enter_context(local.listener.accept()[0])


def test_a_hundred_clients_at_the_same_time_are_served(server: Server) -> None:
    texts: list[str] = []

    def ask() -> None:
        with Client(server.run_dir) as client:
            texts.append(client.complete("a", model="synthetic", max_tokens=4).text)

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == ["0 1 2 3 "] * 100
