"""`rbee.client` against a real server: plain, on trio and on asyncio."""

import asyncio
import gc
import json
import math
import os
import re
import signal
import stat
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio

from rbee.client import (
    AnswerError,
    AsyncClient,
    AsyncStream,
    BadRequestError,
    Client,
    ClientError,
    ServerGoneError,
    TimedOutError,
)
from tests.e2e.server import Server, serving, synthetic_config

ROOT = Path(__file__).parents[2]
HELLO = [{"role": "user", "content": "hello"}]
COUNTED = [f"{number} " for number in range(8)]
ENDLESS = {"model": "synthetic", "max_tokens": 4000, "stream": True}

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


def run_on_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


LIBRARIES = pytest.mark.parametrize("run", [trio.run, run_on_asyncio], ids=["trio", "asyncio"])


@pytest.fixture
def client(server: Server) -> Any:
    with Client(server.run_dir) as client:
        yield client


def masked(value: Any) -> str:
    """An answer without what differs each time."""
    text = re.sub(r'"(chatcmpl|cmpl)-[0-9a-f]+"', '"id"', json.dumps(value))
    return re.sub(r'"correlation_id": "[^"]*"', "", re.sub(r'"created": \d+', "", text))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "synthetic", "messages": HELLO, "max_tokens": 5}),
        ("/v1/chat/completions", {"model": "synthetic", "messages": HELLO, "n": 2, "seed": 1,
                                  "max_tokens": 3}),
        ("/v1/completions", {"model": "synthetic", "prompt": "a", "max_tokens": 5}),
        ("/v1/completions", {"model": "none", "prompt": "a"}),
        ("/v1/completions", {"model": "synthetic", "prompt": 5, "what": 1}),
        ("/v1/completions", {"model": "synthetic", "prompt": "a" * 2_000_000}),
        ("/v1/completions", []),
        ("/v1/models", {}),
        ("/nowhere", {}),
    ],
)  # fmt: skip
def test_answers_are_those_of_http(server: Server, client: Client, path: str, body: Any) -> None:
    told, expected = client.request("POST", path, body), server.post(path, body)
    assert told.status == expected.status_code
    assert masked(told.value) == masked(expected.json())
    for name in ("content-type", "cache-control", "retry-after", "allow"):
        assert told.fields.get(name) == expected.headers.get(name)


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/v1/models", "/v1/rbee/workers"]
)
def test_what_is_read_is_that_of_http(server: Server, client: Client, path: str) -> None:
    told, expected = client.request("GET", path), server.get(path)
    assert told.status == expected.status_code == 200
    assert set(told.value) == set(expected.json())


def test_what_is_no_json_comes_as_text(server: Server, client: Client) -> None:
    assert client.request("GET", "/docs").value == server.get("/docs").text


def test_a_chat_and_a_completion(client: Client) -> None:
    answer = client.chat(HELLO, model="synthetic", max_tokens=8)
    assert answer.text == "".join(COUNTED)
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 8)
    endlessly = client.complete("a", model="synthetic", max_tokens=8, timeout_s=math.inf)
    assert endlessly.text == answer.text
    assert [model["id"] for model in client.models()] == ["synthetic"]
    assert client.health() == "ok"


def test_a_stream_brings_each_delta_and_the_connection_serves_again(client: Client) -> None:
    for _ in range(3):
        with client.chat(HELLO, model="synthetic", max_tokens=8, stream=True) as stream:
            deltas = list(stream)
        assert "".join(delta.text for delta in deltas) == "".join(COUNTED)
        assert [delta.finish_reason for delta in deltas][-1] == "length"
    told = client.complete("a", model="synthetic", max_tokens=8, stream=True)
    assert "".join(delta.text for delta in told) == "".join(COUNTED)


def test_a_refusal_has_its_code_its_status_and_its_correlation_id(client: Client) -> None:
    with pytest.raises(AnswerError) as refused:
        client.chat(HELLO, model="synthetic", correlation_id="my-id", temperature=99)
    error = refused.value
    assert (error.code, error.status, error.correlation_id) == ("invalid_request", 400, "my-id")
    assert error.param == "temperature"
    assert error.details[0]["field"] == "temperature"
    with pytest.raises(AnswerError, match="no such model"):
        client.chat(HELLO, model="none", stream=True)
    with pytest.raises(BadRequestError, match="regex"):
        client.request("get", "/v1/models")


@pytest.mark.parametrize(
    "wrong", [math.nan, math.inf, -math.inf, [{"a": math.nan}], "\ud800", object()]
)
def test_what_json_cannot_say_is_refused_before_it_is_sent(client: Client, wrong: object) -> None:
    with pytest.raises(BadRequestError, match="JSON"):
        client.complete("a", model="synthetic", temperature=wrong)
    answer = client.complete("null", model="synthetic", max_tokens=1, temperature=None)
    assert answer.text == "0 "


def test_a_timeout_that_is_no_number_is_refused(client: Client) -> None:
    five: Any = "5"
    with pytest.raises(BadRequestError, match="timeout_s must be a number, got str"):
        client.complete("a", model="synthetic", timeout_s=five)


def test_messages_that_are_no_list_are_refused(client: Client) -> None:
    five: Any = 5
    with pytest.raises(BadRequestError, match="messages must be a list of messages, got int"):
        client.chat(five, model="synthetic")


@LIBRARIES
def test_every_timeout_above_0_is_taken_by_both_clients_and_no_other(
    server: Server, client: Client, run: Run
) -> None:
    ask = {"model": "synthetic", "max_tokens": 1}

    async def main() -> None:
        async with AsyncClient(server.run_dir) as asynchronous:
            for timeout_s in (1e10, 1e300, 3e6, 86_400, math.inf):
                assert client.complete("a", timeout_s=timeout_s, **ask).text == "0 "
                assert (await asynchronous.complete("a", timeout_s=timeout_s, **ask)).text == "0 "
            for timeout_s in (0.0004, 1e-300):
                with pytest.raises(AnswerError, match="deadline"):
                    client.chat(HELLO, model="synthetic", max_tokens=4000, timeout_s=timeout_s)
            for timeout_s in (0, -1.0, -math.inf, math.nan):
                for make in (Client, AsyncClient):
                    with pytest.raises(BadRequestError, match="timeout_s must be above 0"):
                        make(server.run_dir, timeout_s=timeout_s)
                with pytest.raises(BadRequestError):
                    client.complete("a", timeout_s=timeout_s, **ask)
                with pytest.raises(BadRequestError):
                    await asynchronous.complete("a", timeout_s=timeout_s, **ask)

    run(main)


def test_a_deadline_is_the_servers_and_its_end_of_a_stream_is_an_error(client: Client) -> None:
    with pytest.raises(AnswerError) as late:
        client.chat(HELLO, model="synthetic", max_tokens=4000, timeout_s=0.3)
    assert (late.value.code, late.value.status) == ("deadline_exceeded", 504)
    stream = client.chat(HELLO, model="synthetic", max_tokens=4000, timeout_s=0.3, stream=True)
    texts = []
    with pytest.raises(AnswerError, match="deadline"):
        texts.extend(delta.text for delta in stream)
    assert "".join(texts).startswith("0 1 2 ")
    assert client.health() == "ok"


def test_the_log_says_that_it_was_the_local_face(server: Server, client: Client) -> None:
    client.complete("a", model="synthetic", max_tokens=1, correlation_id="here")
    done = server.wait_event("request_done", correlation_id="here")
    assert (done["face"], done["route"], done["outcome"]) == ("local", "/v1/completions", "ok")


@pytest.mark.parametrize("way", ["close", "with", "forget"])
def test_who_leaves_a_stream_ends_its_request_within_200_ms(
    server: Server, client: Client, way: str
) -> None:
    stream = client.chat(HELLO, correlation_id=way, **ENDLESS)  # type: ignore[call-overload]
    assert next(stream).text.startswith("0 ")
    if way == "close":
        stream.close()
    elif way == "with":
        with stream:
            pass
    else:
        del stream
        gc.collect()
    server.wait_event("request_done", 0.2 + 0.3, correlation_id=way, outcome="client_gone")


def test_one_request_ends_another(client: Client) -> None:
    stream = client.chat(HELLO, correlation_id="victim", **ENDLESS)  # type: ignore[call-overload]
    assert next(stream).text.startswith("0 ")
    assert client.cancel("victim")
    with pytest.raises(AnswerError) as ended:
        list(stream)
    assert ended.value.code == "cancelled"
    assert not client.cancel("victim")


def test_several_threads_use_one_client(client: Client) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.extend(client.complete("a", model="synthetic", max_tokens=8).text for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == ["".join(COUNTED)] * 40


@LIBRARIES
def test_tasks_ask_at_the_same_time(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.run_dir) as client:
            assert await client.health() == "ok"
            assert [model["id"] for model in await client.models()] == ["synthetic"]
            answer = await client.chat(HELLO, model="synthetic", max_tokens=8)
            assert answer.text == "".join(COUNTED)
            streams = [
                await client.complete("a", model="synthetic", max_tokens=8, stream=True)
                for _ in range(20)
            ]
            for stream in streams:
                async with stream:
                    assert "".join([delta.text async for delta in stream]) == answer.text
            with pytest.raises(AnswerError, match="no such model"):
                await client.complete("a", model="none")

    run(main)


async def test_a_cancelled_call_ends_its_request_on_trio(server: Server) -> None:
    async with AsyncClient(server.run_dir) as client:
        with trio.move_on_after(0.1) as limit:
            await client.chat(HELLO, model="synthetic", max_tokens=4000, correlation_id="trio")
        assert limit.cancelled_caught
        server.wait_event("request_done", 0.5, correlation_id="trio", outcome="client_gone")
        assert await client.health() == "ok"


def test_a_cancelled_call_ends_its_request_on_asyncio(server: Server) -> None:
    async def main() -> None:
        async with AsyncClient(server.run_dir) as client:
            stream = await client.chat(HELLO, correlation_id="asyncio", **ENDLESS)  # type: ignore[call-overload]
            begun = asyncio.Event()
            taking = asyncio.create_task(take_all(stream, begun))
            await begun.wait()
            taking.cancel()
            assert isinstance(await asyncio.gather(taking, return_exceptions=True), list)
            server.wait_event("request_done", 0.5, correlation_id="asyncio", outcome="client_gone")
            assert await client.health() == "ok"

    asyncio.run(main())


async def take_all(stream: AsyncStream, begun: asyncio.Event | trio.Event) -> None:
    async for _ in stream:
        begun.set()


def test_where_no_server_is_it_is_said_at_once(tmp_path: Path) -> None:
    with Client(tmp_path) as client, pytest.raises(ServerGoneError, match="no server is there"):
        client.health()
    with pytest.raises(ClientError, match="closed"):
        client.health()


def test_a_client_that_is_closed_ends_its_streams(server: Server) -> None:
    with Client(server.run_dir) as client:
        stream = client.chat(HELLO, correlation_id="closed", **ENDLESS)  # type: ignore[call-overload]
        assert next(stream).text.startswith("0 ")
    server.wait_event("request_done", 0.5, correlation_id="closed", outcome="client_gone")
    with pytest.raises(ClientError, match="closed"):
        list(stream)


async def test_who_is_in_a_call_when_the_client_is_closed_is_told_on_trio(server: Server) -> None:
    client, begun = AsyncClient(server.run_dir), trio.Event()
    stream = await client.chat(HELLO, correlation_id="cut-trio", **ENDLESS)  # type: ignore[call-overload]

    async def take() -> None:
        with pytest.raises(ServerGoneError, match="this client is closed"):
            await take_all(stream, begun)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await begun.wait()
            client.close()
    server.wait_event("request_done", 0.5, correlation_id="cut-trio", outcome="client_gone")


def test_who_is_in_a_call_when_the_client_is_closed_is_told_on_asyncio(server: Server) -> None:
    async def main() -> None:
        client, begun = AsyncClient(server.run_dir), asyncio.Event()
        stream = await client.chat(HELLO, **ENDLESS)  # type: ignore[call-overload]
        taking = asyncio.create_task(take_all(stream, begun))
        await begun.wait()
        client.close()
        with pytest.raises(ServerGoneError, match="this client is closed"):
            await asyncio.wait_for(taking, 5)

    asyncio.run(main())


def test_a_server_that_is_stopped_or_killed_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.client.talk.GRACE_S", 0.0)
    monkeypatch.setattr("rbee.client.talk._CONNECT_S", 0.2)
    with serving(tmp_path, synthetic_config()) as server, Client(server.run_dir) as client:
        stream = client.chat(HELLO, **ENDLESS)  # type: ignore[call-overload]
        assert client.health() == "ok"
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimedOutError):
                client.chat(HELLO, model="synthetic", timeout_s=0.2)
            for run in (trio.run, run_on_asyncio):
                run(lambda: find_no_answer(server.run_dir))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerGoneError):
            list(stream)
        with pytest.raises(ServerGoneError, match="no server"):
            client.health()


async def find_no_answer(run_dir: Path) -> None:
    async with AsyncClient(run_dir) as client:
        with pytest.raises(ServerGoneError, match="no server answers"):
            await client.health()


def test_the_socket_is_ours_alone(server: Server) -> None:
    path = server.run_dir / "client.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.run_dir.stat().st_mode) == 0o700


def test_the_server_is_found_by_the_configuration_that_lies_here(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "rbee.toml").write_text(f'[server]\nrun_dir = "{server.run_dir}"\n')
    monkeypatch.chdir(tmp_path)
    with Client() as client:
        assert client.health() == "ok"


def test_the_programs_in_the_documents_run(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rbee.toml").write_text(f'[server]\nrun_dir = "{server.run_dir}"\n')
    text = (ROOT / "docs" / "local.md").read_text("utf-8")
    text = text.replace("bee-tiny", "synthetic").replace("What is 2 plus 3?", "[tokens=5]")
    text = text.replace("/run/user/1000/rbee", str(server.run_dir))
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        names: dict[str, Any] = {}
        exec(program, names)
        if "socket" in names:
            names["socket"].context.term()
    said = capsys.readouterr().out
    assert "ok ['synthetic']" in said
    assert "'type': 'head', 'status': 200" in said
