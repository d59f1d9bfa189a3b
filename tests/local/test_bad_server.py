"""A client whose server says what no server of ours would: an error of the client's, each time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from rbee.client import AnswerError, BadAnswerError, Client
from rbee.local_wire import SOCKET_NAME, End, FromServer, Head, Part, encode_answer


@contextmanager
def saying(run_dir: Path, replies: list[list[bytes]]) -> Iterator[None]:
    """A server that says one thing to whoever asks first, through libzmq's own ROUTER."""
    context = zmq.Context[zmq.Socket[bytes]]()
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{run_dir / SOCKET_NAME}")

    def answer() -> None:
        client, *_ = router.recv_multipart()
        for reply in replies:
            router.send_multipart([client, *reply])

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    thread.join(10)
    context.destroy(linger=0)


def told(*messages: FromServer) -> list[list[bytes]]:
    return [encode_answer(each) for each in messages]


HEAD = Head(200, {})


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([[b"rbee-local/2", b"\x80"]], id="another-version"),
        pytest.param([[b"rbee-local/1", b"\xc1"]], id="no-msgpack"),
        pytest.param([[b"rbee-local/1"]], id="one-frame"),
        pytest.param(told(End()), id="no-head"),
        pytest.param(told(HEAD, HEAD), id="two-heads"),
        pytest.param(told(HEAD, Part(b"{"), End()), id="no-json"),
        pytest.param(told(HEAD, Part(b"[]"), End()), id="another-json"),
    ],
)
def test_what_is_no_answer_is_said_to_be_none(tmp_path: Path, replies: list[list[bytes]]) -> None:
    with saying(tmp_path, replies), Client(tmp_path) as client, pytest.raises(BadAnswerError):
        client.complete("a", model="m", timeout_s=10)


def test_what_should_tell_of_health_and_does_not_is_said_to_be_none(tmp_path: Path) -> None:
    replies = told(HEAD, Part(b"well"), End())
    with (
        saying(tmp_path, replies),
        Client(tmp_path) as client,
        pytest.raises(BadAnswerError, match="status"),
    ):
        client.health()


def test_a_refusal_where_health_is_asked_for_is_an_answer(tmp_path: Path) -> None:
    refusal = b'{"error": {"code": "internal_error", "message": "a bug"}}'
    head = Head(500, {"content-type": "application/json"})
    replies = told(head, Part(refusal), End())
    with (
        saying(tmp_path, replies),
        Client(tmp_path) as client,
        pytest.raises(AnswerError, match="a bug"),
    ):
        client.health()


def test_an_event_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    replies = told(HEAD, Part(b'data: {"choices":[5]}\n\n'), End())
    with saying(tmp_path, replies), Client(tmp_path) as client:
        stream = client.complete("a", model="m", timeout_s=10, stream=True)
        with pytest.raises(BadAnswerError):
            next(stream)
