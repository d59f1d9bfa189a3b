"""The steps of `specs/140-input-validation.feature`, most of which try one and the same server."""

import gzip
import http.client
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from rbee.supervisor.api.chat_body import PARAMETERS
from tests.specs.runner import Steps
from tests.specs.shared import shared_server
from tests.specs.world import World, chat_body

STEPS = Steps()
step = STEPS.step

CHAT: Final = "/v1/chat/completions"
CONFIG: Final = "[server]\n{}body_timeout_s = 1.0\nfirst_token_timeout_s = 20.0\n"


@step(r"a server to be tried(?:, with the lane (on|off))?")
def given_tried(world: World, lane: str | None) -> None:
    head = CONFIG.format("lane = false\n" if lane == "off" else "")
    world.borrow(shared_server(head))


@step(r"a chat is tried with (\{.+\})")
def when_chat(world: World, more: str) -> None:
    body = json.loads(more)
    given = {"max_tokens": 3, **chat_body("hello"), **body}
    world.try_("POST", CHAT, content=json.dumps(given).encode())


@step(r"a chat is tried with (\d+) stop strings of (\d+) bytes")
def when_stops(world: World, count: str, size: str) -> None:
    stops = [f"{number:02d}".ljust(int(size), "x") for number in range(int(count))]
    world.try_(
        "POST", CHAT, content=json.dumps({**chat_body("hi"), "max_tokens": 3, "stop": stops})
    )


_BODIES: Final = {
    "of 100000 arrays in each other": b'{"model":' + b"[" * 100_000,
    "of 30000 arrays side by side": b'{"model":[' + b"[]," * 30_000 + b"[]]}",
    "with NaN": b'{"model":"synthetic","temperature":NaN}',
    "with Infinity": b'{"model":"synthetic","temperature":Infinity}',
    "with a number of 5000 digits": b'{"model":"synthetic","seed":' + b"9" * 5000 + b"}",
    "with a key twice": b'{"model":"synthetic","model":"synthetic"}',
    "with half a character": b'{"model":"synthetic","prompt":"\\ud800"}',
    "in UTF-16": '{"model":"synthetic"}'.encode("utf-16"),
    "with a byte order mark": b'\xef\xbb\xbf{"model":"synthetic"}',
    "cut off": b'{"model":"synthetic"',
    "of two documents": b"{} {}",
}


@step(r"the body (.+) is tried")
def when_body(world: World, which: str) -> None:
    world.try_("POST", CHAT, content=_BODIES[which])


@step(r'what cannot be is tried in each field, with the word "(.+)"')
def when_each_field(world: World, word: str) -> None:
    for body in _wrong_bodies(word):
        world.try_("POST", CHAT, content=json.dumps(body).encode())
    for path in ("/v1/models/", "/v1/rbee/crashes/", "/", "/v1/models?%20"):
        world.try_("GET", path + word)
    world.try_("GET", "/v1/models", headers={"X-Correlation-ID": f"{word} {word}"})


def _wrong_bodies(word: str) -> Iterator[dict[str, Any]]:
    text = f"{word} {word}"
    for name in PARAMETERS:
        for value in (text, [text], {text: text}):
            if name != "stop" or isinstance(value, dict):  # for which the others are good
                yield {**chat_body("hi"), "max_tokens": 1, name: value}
    yield {**chat_body("hi"), text: 1}


@step(r'each is refused, and no answer and no line of the log holds "(.+)"')
def then_no_echo(world: World, word: str) -> None:
    assert len(world.tried) > 80
    for answer in world.tried:
        assert 400 <= answer.status_code < 500, answer.text
        assert word not in answer.text
        assert word not in str(answer.headers)
    assert not [line for line in world.server.events if word in json.dumps(line)]


@step(r'it is refused with (\d+) "(\w+)"')
def then_refused(world: World, status: str, code: str) -> None:
    world.expect_error(int(status), code)


@step(r'it is refused with (\d+) "(\w+)" and details on "(.+)"')
def then_details(world: World, status: str, code: str, fields: str) -> None:
    error = world.expect_error(int(status), code)
    assert [each["field"] for each in error["details"]] == _sorted_as(fields, error)
    assert error["param"] == error["details"][0]["field"]


def _sorted_as(fields: str, error: dict[str, Any]) -> list[str]:
    """In the order of the answer: it is that of the body, with what is missing behind."""
    wanted = fields.split(", ")
    found = [each["field"] for each in error["details"]]
    return found if sorted(found) == sorted(wanted) else wanted


@step(r"it is refused with (\d+) \"(\w+)\" and an id of the server's own")
def then_own_id(world: World, status: str, code: str) -> None:
    error = world.expect_error(int(status), code)
    assert len(error["correlation_id"]) == 24


@step(r"it is answered")
def then_answered(world: World) -> None:
    assert world.answer is not None
    assert world.answer.status_code == 200, world.answer.text
    assert world.answer.json()["choices"]


@step(r'"(/[^"]+)" is tried')
def when_path(world: World, path: str) -> None:
    world.try_("GET", path)


@step(r'"(/[^"]+)" is tried with the header "([^:]+): (.+)"')
def when_header(world: World, path: str, name: str, value: str) -> None:
    world.try_("GET", path, headers={name: value})


@step(r"a correlation id of (\d+) letters comes back")
def then_comes_back(world: World, letters: str) -> None:
    given = "a" * int(letters)
    world.try_("GET", "/v1/models", headers={"X-Correlation-ID": given})
    assert world.answer is not None
    assert world.answer.headers["x-correlation-id"] == given


@step(r"a correlation id of (\d+) letters is refused")
def then_too_long(world: World, letters: str) -> None:
    world.try_("GET", "/v1/models", headers={"X-Correlation-ID": "a" * int(letters)})
    world.expect_error(400, "invalid_request")


@step(r'a body over 1 MiB is refused with (\d+) "(\w+)", told by its length or not')
def then_too_large(world: World, status: str, code: str) -> None:
    # By hand: the server may answer, and close, before all was sent.
    address = urlsplit(world.server.url)
    for framing in ("Content-Length: 2000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"):
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.connect()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sock.sendall((head + framing).encode())
        if "chunked" in framing:
            piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            try:
                for _ in range(20):
                    connection.sock.sendall(piece)
            except ConnectionError:
                pass  # it has answered already
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        error = json.loads(answer.read())["error"]
        connection.close()
        assert (answer.status, error["code"]) == (int(status), code)


@step(r'a body of "(.+)" is refused with (\d+) "(\w+)"')
def then_media_type(world: World, media_type: str, status: str, code: str) -> None:
    world.try_("POST", CHAT, content=b"{}", headers={"Content-Type": media_type})
    world.expect_error(int(status), code)


@step(r'a body that is compressed is refused with (\d+) "(\w+)"')
def then_compressed(world: World, status: str, code: str) -> None:
    body = gzip.compress(json.dumps(chat_body("hi")).encode())
    world.try_("POST", CHAT, content=body, headers={"Content-Encoding": "gzip"})
    world.expect_error(int(status), code)


@step(r"the configuration '(.+)'")
def given_configuration(world: World, text: str) -> None:
    world.take_text(text)


@step(r"rbee is started with it")
def when_started(world: World) -> None:
    world.second = world.server_through(())
    world.second.process.wait(30)


@step(r'"(/.+)" describes more than (\d+) operations, and "(/.+)" shows them without a script')
def then_described(world: World, document: str, count: str, page: str) -> None:
    paths = httpx2.get(world.server.url + document).json()["paths"]
    assert sum(len(methods) for methods in paths.values()) > int(count)
    html = httpx2.get(world.server.url + page).text
    assert all(path in html for path in paths)
    assert "<script" not in html
