"""Targets of the fuzzer that read what local programs send over ZeroMQ, and what they are sent."""

from typing import Final

from rbee.client.answers import read_events
from rbee.client.errors import BadAnswerError
from rbee.errors import RemoteProtocolError
from rbee.local_wire import (
    REQUEST_BYTES_MAX,
    VERSION,
    End,
    Head,
    Part,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from rbee.supervisor.local.zmtp import ZmtpServer, write_message
from tests.local.raw import HELLO
from tests.security.target import Target, words

BODY_BYTES_MAX: Final = 4096
ASKED: Final = encode_request(
    Request("POST", "/v1/completions", "Bearer k", "cid", "1.5", "2030-01-01T00:00:00Z"), b"{}"
)
TOLD: Final = (Head(200, {"retry-after": "1"}), Part(b"data: {}\n\n"), End())


def _zmtp(data: bytes) -> None:
    """A client whose first byte says whether it has shaken hands, and where its words are cut."""
    cut = data[0] if data else 0
    said = (HELLO if cut % 2 else b"") + data[1:]
    zmtp = ZmtpServer((len(VERSION), REQUEST_BYTES_MAX, BODY_BYTES_MAX))
    for part in (said[:cut], said[cut:]):
        zmtp.receive(part)
        while (message := zmtp.next_message()) is not None:
            assert len(message.frames[-1]) <= BODY_BYTES_MAX
            decode_request(message.frames)
    assert zmtp.unread_bytes <= REQUEST_BYTES_MAX + BODY_BYTES_MAX


def _events(data: bytes) -> None:
    for told in read_events(data, Head(200, {})):
        assert isinstance(told, Exception) or isinstance(told.text, str)


LOCAL_TARGETS: Final = (
    Target(
        "zmtp", _zmtp,
        [b"\xff" + write_message(ASKED) * 2, b"\x01\x04\x07\x04PING\0\0", b"\0" + HELLO],
        [HELLO, write_message(ASKED), b"\x02\0\0\0\0\0\0", b"\x04", b"READY", b"\x03"],
        (RemoteProtocolError,),
    ),
    Target(
        "local-request", lambda data: decode_request([VERSION, data, b""]), [ASKED[1]],
        words("method path authorization timeout"), (RemoteProtocolError,),
    ),
    Target(
        "local-answer", lambda data: decode_answer([VERSION, data]),
        [encode_answer(each)[1] for each in TOLD],
        words("type head part end status fields data"), (RemoteProtocolError,),
    ),
    Target(
        "local-events", _events,
        [
            b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
            b'data: {"error":{"code":"draining","message":"m"}}\n\ndata: [DONE]\n\n',
            b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n: c\n\n',
        ],
        [b"\n\n", b"data: ", *words('"choices": "error": null [] {}')], (BadAnswerError,),
    ),
)  # fmt: skip
