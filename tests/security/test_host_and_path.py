"""Whatever stands in Host, and however a path is spelled: no route answers that it did not mean.

The class of holes in which a check reads one path and the router another.
"""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.server import Server, serving, synthetic_config

SECRET_PATH = "/v1/rbee/status"

# A server that reads any of these as part of the path, or as its own name, is led astray.
HOSTS = (
    "localhost/health/live", "localhost/health/live?", "localhost/?x=", "localhost#", "localhost?x",
    "localhost/../health/live", "x/y?", "evil.example", "localhost@evil.example", "localhost\\evil",
    "localhost:7233/health/live", "http://localhost/", "", "localhost, localhost",
)  # fmt: skip

# Spellings of the same path to somebody who normalises, and none of them is a route.
SPELLINGS = (
    "//v1/rbee/status", "/v1//rbee/status", "/v1/./rbee/status", "/v1/rbee/status/",
    "/health/live/../../v1/rbee/status", "/v1/rbee/%2e/status", "/V1/rbee/status",
    "/v1/rbee/status%00",
    "/v1/rbee/status;x=1", "/health/live%2f..%2f..%2fv1/rbee/status", "/v1/rbee/status%20",
    "/v1\\rbee\\status",
)  # fmt: skip

# Escapes of what needs none mean the same (RFC 3986, 6.2.2.2), and so do the rights.
ESCAPED = ("/v1%2frbee%2fstatus", "/v1/rbee/%73tatus", "/%761/rbee/status")


@pytest.fixture(scope="module", params=["lane", "hypercorn"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    if request.param == "lane":
        yield request.getfixturevalue("plain_server")
        return
    head = "[server]\nlane = false\n"
    with serving(tmp_path_factory.mktemp("paths"), synthetic_config(head=head)) as server:
        yield server


def ask(server: Server, target: str, host: str | None = "localhost") -> tuple[int, bytes]:
    """Status and all bytes of the answer; 0: the connection was closed without one."""
    address = urlsplit(server.url)
    host_line = "" if host is None else f"Host: {host}\r\n"
    request = f"GET {target} HTTP/1.1\r\n{host_line}Connection: close\r\n\r\n"
    with closing(socket.create_connection((address.hostname, address.port), 10)) as connection:
        connection.sendall(request.encode("latin-1"))
        raw = b""
        try:
            while part := connection.recv(65_536):
                raw += part
        except ConnectionResetError:
            pass
    return (int(raw.split(b" ", 2)[1]) if raw else 0), raw


def test_the_path_itself_answers(server: Server) -> None:
    status, raw = ask(server, SECRET_PATH)
    assert status == 200
    assert b'"workers"' in raw


def test_no_host_moves_a_request_to_another_route(server: Server) -> None:
    for host in HOSTS:
        for path in (SECRET_PATH, "/health/live", "/v1/models"):
            status, raw = ask(server, path, host)
            assert status in (0, 400, 403), (host, path)
            assert b'"workers"' not in raw
    assert ask(server, SECRET_PATH, None)[0] in (0, 400, 403)


def test_no_other_spelling_of_a_path_is_a_route(server: Server) -> None:
    for target in SPELLINGS:
        status, raw = ask(server, target)
        assert status in (0, 400, 404), target
        assert b'"workers"' not in raw, target


def test_an_escaped_path_is_the_same_route(server: Server) -> None:
    for target in ESCAPED:
        assert ask(server, target)[0] == 200, target


def test_where_keys_are_required_no_host_and_no_spelling_gets_in_without(tmp_path: Path) -> None:
    head = "[access]\nrequired = true\n"
    with serving(tmp_path, synthetic_config(head=head)) as server:
        targets = [SECRET_PATH, *SPELLINGS, *ESCAPED]
        tries = [(target, "localhost") for target in targets]
        tries += [(SECRET_PATH, host) for host in HOSTS]
        for target, host in tries:
            status, raw = ask(server, target, host)
            assert status in (0, 400, 401, 403, 404, 429), (target, host)
            assert b'"workers"' not in raw
        assert ask(server, "/health/live")[0] == 200


def test_an_absolute_target_is_refused(server: Server) -> None:
    for target in (f"http://localhost{SECRET_PATH}", f"http://evil.example{SECRET_PATH}", "*"):
        status, raw = ask(server, target)
        assert status in (0, 400, 404), target
        assert b'"workers"' not in raw


def test_answers_carry_headers_that_keep_browsers_from_guessing(server: Server) -> None:
    for path in ("/health/live", "/v1/models", SECRET_PATH, "/no/such/path"):
        _, raw = ask(server, path)
        head = raw.partition(b"\r\n\r\n")[0].lower()
        assert b"content-type: application/json" in head, path
        assert b"x-content-type-options: nosniff" in head, path
        assert b"cache-control: no-store" in head, path
        assert b"server:" not in head, path
