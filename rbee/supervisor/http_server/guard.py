"""Which requests are refused before anybody reads them, and what is answered.

Rule 1: pure. Bytes come in, a verdict goes out.
Rule 2: whatever two readers might understand differently is refused: framing above all.
        h11 refuses the rest of what is malformed; here stands what it would let pass.
Rule 3: an answer never repeats what the client sent.
"""

import http
import json
import re
from dataclasses import dataclass
from typing import Final

from rbee.errors import ErrorCode
from rbee.ids import new_correlation_id
from rbee.supervisor.http_server.limits import HttpLimits

_REQUEST_LINE: Final = re.compile(rb"([!-~]+) ([!-~]+) HTTP/([0-9]\.[0-9])(?:\r\n|\Z)")
# The lines of a head that can make two readers differ: (name, what follows the name).
_TELLING: Final = re.compile(
    rb"\n([ \t]|(?i:content-length|transfer-encoding|upgrade)(?![^:\r]))([^\r\n]*)"
)
_METHOD: Final = re.compile(rb"[A-Z-]{1,24}")  # methods are case-sensitive
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")

# "METHOD " and " HTTP/1.1" around the longest target.
_REQUEST_LINE_ROOM: Final = 40


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no further than its head, or than a part of its body."""

    status: int
    message: str
    code: ErrorCode = ErrorCode.INVALID_REQUEST


# The last that a server that closes says to who has sent a part of a body.
BODY_CUT_SHORT: Final = Refusal(
    408, "the body did not arrive before the server closed", ErrorCode.BODY_TIMEOUT
)


def find_fault(
    received: bytes | bytearray, limits: HttpLimits, judged_bytes: int = 0
) -> Refusal | None:
    """Judge the start of a request, complete or not. None: nothing is wrong so far.

    Args:
      judged_bytes: how much of it was judged before, and was without fault: it is not read again,
        so that a head which comes byte by byte costs no more than one that comes at once.
    """
    end = received.find(b"\r\n\r\n", max(judged_bytes - 3, 0))
    if end < 0:
        return _fault_of_partial(received, limits, judged_bytes)
    if end > limits.header_bytes_max:
        return Refusal(431, f"the head of a request is at most {limits.header_bytes_max} bytes")
    head = bytes(received[:end])
    text = head.replace(b"\r\n", b"")
    header_count = (len(head) - len(text)) // 2
    return _fault_of_text(text) or _fault_of_head(head, header_count, limits)


def _fault_of_partial(
    received: bytes | bytearray, limits: HttpLimits, judged_bytes: int
) -> Refusal | None:
    line_bytes_max = limits.target_bytes_max + _REQUEST_LINE_ROOM
    is_long = judged_bytes <= line_bytes_max < len(received)
    if is_long and received.find(b"\r\n", 0, line_bytes_max) < 0:
        return Refusal(414, f"a target is at most {limits.target_bytes_max} bytes")
    if len(received) > limits.header_bytes_max:
        return Refusal(431, f"the head of a request is at most {limits.header_bytes_max} bytes")
    if received and not b"!" <= received[:1] <= b"~":
        return Refusal(400, "this is not HTTP")
    # Between a CR and its LF one may have stopped to read: before this part, or behind it.
    part = bytes(received[max(judged_bytes - 1, 0) :]).removeprefix(b"\n").removesuffix(b"\r")
    return _fault_of_text(part.replace(b"\r\n", b""))


def _fault_of_text(text: bytes) -> Refusal | None:
    """Judge a head without its line ends."""
    if b"\r" in text or b"\n" in text:
        return Refusal(400, "a line of the head must end in CR LF")
    if b"\0" in text:
        return Refusal(400, "the head holds a NUL byte")
    return None


def _fault_of_head(head: bytes, header_count: int, limits: HttpLimits) -> Refusal | None:
    match = _REQUEST_LINE.match(head)
    if match is None:
        return Refusal(400, "the request line is malformed")
    method, target, version = match.groups()
    fault = _fault_of_request_line(method, target, version, limits)
    if fault is not None:
        return fault
    if header_count > limits.header_count_max:
        return Refusal(431, f"at most {limits.header_count_max} headers are taken")
    return _fault_of_headers(head, is_old=version == b"1.0")


def _fault_of_request_line(
    method: bytes, target: bytes, version: bytes, limits: HttpLimits
) -> Refusal | None:
    if version not in (b"1.1", b"1.0"):
        return Refusal(505, "only HTTP/1.1 is spoken here")
    if len(target) > limits.target_bytes_max:
        return Refusal(414, f"a target is at most {limits.target_bytes_max} bytes")
    if method == b"CONNECT" or not _METHOD.fullmatch(method):
        return Refusal(501, "this method is not implemented")
    if target[:1] != b"/" and (method, target) != (b"OPTIONS", b"*"):
        return Refusal(400, "the target must be a path; this is no proxy")
    return None


def _fault_of_headers(head: bytes, *, is_old: bool) -> Refusal | None:
    values: dict[bytes, list[bytes]] = {b"content-length": [], b"transfer-encoding": []}
    for start, rest in _TELLING.findall(head):
        if start in (b" ", b"\t"):
            return Refusal(400, "a header must stand on one line")
        value = rest.removeprefix(b":").strip(b" \t").lower()
        name = start.lower()
        if name in values:
            values[name].append(value)
        elif b"websocket" in value:
            return Refusal(501, "WebSocket is not spoken here")
    return _fault_of_framing(values[b"content-length"], values[b"transfer-encoding"], is_old=is_old)


def _fault_of_framing(
    lengths: list[bytes], encodings: list[bytes], *, is_old: bool
) -> Refusal | None:
    if encodings:
        if lengths:
            return Refusal(400, "Content-Length and Transfer-Encoding exclude each other")
        if len(encodings) > 1 or is_old:
            return Refusal(400, "Transfer-Encoding may stand once, and only in HTTP/1.1")
        if encodings[0] != b"chunked":
            return Refusal(501, "the only Transfer-Encoding taken is chunked")
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        return Refusal(400, "Content-Length must stand once and be a number")
    return None


def error_answer(
    status: int, code: ErrorCode, message: str, *, retry_after_s: int | None = None
) -> bytes:
    """A whole answer that ends its connection, in the one shape of our errors."""
    correlation_id = new_correlation_id()
    is_ours = code is not ErrorCode.INVALID_REQUEST
    error: dict[str, object] = {
        "message": message,
        "type": "server_error" if is_ours else "invalid_request_error",
        "code": code.value,
        "param": None,
        "details": [],
        "correlation_id": correlation_id,
    }
    body = json.dumps({"error": error}).encode()
    retry = f"retry-after: {retry_after_s}\r\n" if retry_after_s is not None else ""
    head = (
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{retry}"
        f"x-correlation-id: {correlation_id}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
