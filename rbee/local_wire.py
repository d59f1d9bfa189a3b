"""The local protocol: what programs of this machine and the server say over ZeroMQ.

No socket, no clock and no await in this file: a message comes in as a list of frames and goes
out as one. docs/local.md tells the same to the authors of clients.

    from a client   `VERSION`, one msgpack map (a `Request`), the body (JSON, or nothing)
    from the server `VERSION`, one msgpack map; its "type" says which message it is

A client asks one thing at a time; the answer is a `Head`, any number of `Part`s, and an `End`.

Rule 1: whatever bytes arrive give a message or a `RemoteProtocolError`.
Rule 2: no extension types, no pickle; unknown fields are errors; sizes are bounded.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from rbee.errors import RemoteProtocolError

VERSION: Final = b"rbee-local/1"
SOCKET_NAME: Final = "client.sock"  # in the run directory

REQUEST_BYTES_MAX: Final = 16 * 1024  # of a request's map; the body is a frame of its own

# An answer comes in parts, each of which one step of an engine, or a whole answer, made.
PART_BYTES_MAX: Final = 64 * 1024 * 1024

# Values of headers: what HTTP's parsers let through, and no line's end.
_Value = Annotated[str, Meta(max_length=8192, pattern=r"\A[\x20-\x7e\x80-\xff]*\Z")]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request, as HTTP knows it. What is "" is not said."""

    method: Annotated[str, Meta(pattern=r"\A[A-Z]{1,16}\Z")]
    # As it is, not percent-encoded.
    path: Annotated[str, Meta(max_length=1024, pattern=r"\A/[\x21-\x7e]*\Z")]
    authorization: _Value = ""  # "Bearer " and a key or a JWT
    correlation_id: _Value = ""
    timeout: _Value = ""  # seconds, as the header X-Request-Timeout has them
    deadline: _Value = ""  # a time, as the header X-Request-Deadline has it


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of what the server says. Match on the subclasses."""


class Head(Answer, frozen=True, tag="head"):
    """An answer begins: its HTTP status, and its headers by their names in lower case."""

    status: Annotated[int, Meta(ge=200, le=599)]
    fields: dict[str, str]


class Part(Answer, frozen=True, tag="part"):
    """More of an answer's body. Of a stream of events each part holds whole ones."""

    data: bytes


class End(Answer, frozen=True, tag="end"):
    """The answer is whole."""


FromServer = Head | Part | End

_encoder: Final = msgspec.msgpack.Encoder()
_request: Final = msgspec.msgpack.Decoder(Request)
_answer: Final[msgspec.msgpack.Decoder[FromServer]] = msgspec.msgpack.Decoder(FromServer)


def encode_request(request: Request, body: bytes) -> list[bytes]:
    return [VERSION, _encoder.encode(request), body]


def encode_answer(message: FromServer) -> list[bytes]:
    return [VERSION, _encoder.encode(message)]


def decode_request(frames: list[bytes]) -> Request:
    """Read what a client asks; the body, the third frame, is not looked at.

    Raises:
      RemoteProtocolError: the frames are not a request of this protocol version.
    """
    _check_frames(frames, 3)
    try:
        return _request.decode(frames[1])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(str(error)) from error


def decode_answer(frames: list[bytes]) -> FromServer:
    """Read what the server says.

    Raises:
      RemoteProtocolError: the frames are not a message of this protocol version.
    """
    _check_frames(frames, 2)
    try:
        return _answer.decode(frames[1])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(str(error)) from error


def _check_frames(frames: list[bytes], count: int) -> None:
    if len(frames) != count:
        raise RemoteProtocolError(f"expected {count} frames, got {len(frames)}")
    if frames[0] != VERSION:
        raise RemoteProtocolError(f"expected {VERSION!r}, got {frames[0][:32]!r}")
