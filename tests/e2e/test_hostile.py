"""Finding 1: the seven kinds of connection that end stock hypercorn, sent to the real server."""

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.server import Server, serving, synthetic_config
from tests.http_server.test_hostile import ATTEMPTS, H2, UPGRADE

BODY = b'{"model": "synthetic", "prompt": "hi", "max_tokens": 300, "stream": true}'
CHUNKED = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"
) % (len(BODY), BODY)
BAD_FOOTER = b"3\r\nabcXX0\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: \xff\xfe\r\n\r\n"
)

KINDS = {
    **{name: [frames] for name, frames in H2.items()},
    **{f"{name}, by upgrade": [UPGRADE, frames] for name, frames in H2.items()},
    "f: a websocket that is not ASCII": [WEBSOCKET],
    "g: a malformed chunk footer": [CHUNKED, BAD_FOOTER],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hostile"), synthetic_config()) as server:
        yield server


@pytest.mark.parametrize("parts", KINDS.values(), ids=KINDS)
def test_the_server_answers_on_after_a_hostile_connection(
    server: Server, parts: list[bytes]
) -> None:
    pids = server.worker_pids()
    for _ in range(ATTEMPTS):
        send(server.url, parts)
    assert server.chat("[tokens=3]").json()["choices"][0]["message"]["content"] == "0 1 2 "
    assert server.process.poll() is None
    assert server.worker_pids() == pids
    assert not [event for event in server.events if event.get("level") == "error"]


def send(url: str, parts: list[bytes]) -> None:
    """Send the parts, with a moment between two for the server to begin its answer."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.005)
            connection.settimeout(0.05)
            connection.recv(4096)
        except OSError:
            return  # refused and closed, which is right
