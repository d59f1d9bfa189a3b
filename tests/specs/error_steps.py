"""The steps of `specs/320-errors.feature`."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from tests.e2e.server import wait_until
from tests.e2e.stream import Stream
from tests.specs.runner import Steps
from tests.specs.world import World, chat_body

STEPS = Steps()
step = STEPS.step

CHAT: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"


def _chat(world: World, *, headers: dict[str, str] | None = None, **more: Any) -> None:
    world.try_("POST", CHAT, json={**chat_body("hello"), **more}, headers=headers or {})


_MISTAKES: Final[dict[str, Callable[[World], object]]] = {
    "a field of the wrong kind": lambda world: _chat(world, n="two"),
    "a body that is no JSON": lambda world: world.try_("POST", CHAT, content=b"{'a': 1}"),
    "a field that nobody knows": lambda world: _chat(world, mirostat=2),
    "an answer that does not fit": lambda world: _chat(world, max_tokens=100_000),
    "a foreign host": lambda world: world.try_("GET", MODELS, headers={"Host": "evil.example"}),
    "a foreign web page": lambda world: world.try_(
        "GET", MODELS, headers={"Origin": "http://evil.example"}
    ),
    "a path that leads nowhere": lambda world: world.try_("GET", "/v1/embeddings/x"),
    "a model that is not there": lambda world: _chat(world, model="nobody"),
    "a model whose worker is stopped": _chat,
    "a slot that is not there": lambda world: world.try_("POST", "/v1/rbee/workers/none-0/reset"),
    "a method that is not taken": lambda world: world.try_("PUT", MODELS),
    "a body of another kind": lambda world: world.try_(
        "POST", CHAT, content=b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"}
    ),
    "a deadline that has passed": lambda world: _chat(
        world, headers={"X-Request-Deadline": "2020-01-01T00:00:00Z"}
    ),
}


@step(r"(an? [a-z A-Z]+) is tried")
def when_mistake(world: World, mistake: str) -> None:
    _MISTAKES[mistake](world)


@step(r"the connection goes on")
def then_goes_on(world: World) -> None:
    assert world.answer is not None
    assert world.answer.headers.get("connection", "keep-alive") != "close"
    assert world.try_("GET", "/health/live").status_code == 200


@step(r'"(.+)" is refused with (\d+) "(\w+)", and the connection ends')
def then_bytes_refused(world: World, told: str, status: str, code: str) -> None:
    data = told.encode()
    for name, meaning in ((b"%r", b"\r"), (b"%n", b"\n"), (b"%0", b"\0"), (b"%long", b"x" * 9000)):
        data = data.replace(name, meaning)
    received = _exchange(world, data)
    head, _, body = received.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert head.split(b" ")[1] == status.encode()
    assert error["code"] == code
    assert f"x-correlation-id: {error['correlation_id']}".encode() in head.lower()


def _exchange(world: World, data: bytes) -> bytes:
    """Send bytes, and read until the server ends the connection."""
    address = urlsplit(world.server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65_536):
            received += part
    return received


@step(r'a body that stops in the middle is refused with (\d+) "(\w+)"')
def then_body_timeout(world: World, status: str, code: str) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    received = _exchange(world, head.encode() + b'{"model": ')
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == code


# --- the log


@step(r'a chat with the prompt "(.+)" and the id "(.+)" is refused')
def when_refused(world: World, prompt: str, request_id: str) -> None:
    body = {**chat_body(prompt), "temperature": 9}
    world.try_("POST", CHAT, json=body, headers={"X-Correlation-ID": request_id})
    world.expect_error(400, "invalid_request")


@step(r'the log has one line of "(.+)", with the outcome "(\w+)"')
def then_log_line(world: World, request_id: str, outcome: str) -> None:
    def lines() -> list[dict[str, Any]]:
        return [e for e in world.server.events if e.get("correlation_id") == request_id]

    wait_until(lambda: bool(lines()), 5, "its line")
    [line] = lines()
    assert (line["event"], line["outcome"]) == ("request_done", outcome)


@step(r"the log has one line of the answer's id, with the outcome \"(\w+)\"")
def then_log_line_of_answer(world: World, outcome: str) -> None:
    assert world.answer is not None
    then_log_line(world, world.answer.headers["x-correlation-id"], outcome)


@step(r'no line of the log holds "(.+)"')
def then_not_in_log(world: World, word: str) -> None:
    assert not [line for line in world.server.events if word in json.dumps(line)]


@step(r"it has logged no bug, and its worker has ended never")
def then_as_it_was(world: World) -> None:
    events = {event["event"] for event in world.server.events}
    assert not events & {"request_failed", "worker_failed", "not_json"}
    assert [worker["restarts"] for worker in world.server.workers()] == [0]


@step(r'the log warns of "(\w+)" and "(\w+)", with what follows from it')
def then_warned(world: World, *names: str) -> None:
    for name in names:
        wait_until(lambda name=name: any(e["event"] == name for e in world.server.events), 5, name)
        [line] = [event for event in world.server.events if event["event"] == name]
        assert line["level"] in ("warning", "error")
        assert line["problem"]
        assert line.get("remedy") or line.get("effect")


# --- requests that end in the middle


@step(r'a stream of the id "(.+)" is given half of its time')
def when_half_the_time(world: World, request_id: str) -> None:
    body = {"model": "synthetic", "prompt": "hello", "max_tokens": 200}
    headers = {"X-Correlation-ID": request_id, "X-Request-Timeout": "0.5"}
    world.streams.append(Stream(world.server.url, "/v1/completions", body, headers=headers))


@step(r'it ends with one event of the error "(\w+)" and the id "(.+)", and "(.+)"')
def then_one_error_event(world: World, code: str, request_id: str, last: str) -> None:
    stream = world.streams[-1].wait_over(20)
    assert (stream.status, stream.events[-1]) == (200, last)
    assert stream.text
    [error] = stream.errors
    assert (error["code"], error["correlation_id"]) == (code, request_id)
    assert set(error) == {"message", "type", "code", "param", "details", "correlation_id"}


@step(r'a request of the id "(.+)" is cancelled while it waits for its answer')
def when_cancelled(world: World, request_id: str) -> None:
    headers = {"X-Correlation-ID": request_id}
    waiting = threading.Thread(
        target=lambda: _chat(world, headers=headers, max_tokens=4000), daemon=True
    )
    waiting.start()

    def cancel() -> bool:
        told = httpx2.delete(f"{world.server.url}/v1/requests/{request_id}", timeout=10)
        return told.json()["cancelled"] is True

    wait_until(cancel, 10, "its begin")
    waiting.join(10)


@step(r"a server whose state folder is a file")
def given_no_state(world: World) -> None:
    path = world.directory / "state"
    path.write_text("")
    world.configure(head=f'[server]\nstate_dir = "{path}"\n')
    world.start()
