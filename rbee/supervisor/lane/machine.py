"""One connection of the lane, without the connection: bytes in, events and bytes out.

Rule 1: no socket, clock or task is known here.
Rule 2: what is refused is what the HTTP server refuses, and in its words. What is allowed but
        unusual is handed over, with all its bytes, at the end of its head.
Rule 3: one request at a time. What a client sends ahead waits until the answer before it is
        complete; over a bound nothing more is to be read until then.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rbee.errors import ErrorCode
from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.http_server.guard import Refusal, error_answer, find_fault
from rbee.supervisor.http_server.protocol import PIPELINED_BYTES_MAX
from rbee.supervisor.lane.answer import CHUNKED, CLOSE, Headers, has_body, write_head
from rbee.supervisor.lane.head import Head, find_framing, read_head

_HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request on a hot route. Wants an answer."""

    head: Head
    body: bytes


@dataclass(frozen=True, slots=True)
class HandOver:
    """The HTTP server is to carry on with this connection. The machine is finished."""

    received: bytes  # from the first byte of the request that the lane does not take


@dataclass(frozen=True, slots=True)
class Refused:
    """Send the answer, then end the connection. The machine is finished."""

    status: int
    answer: bytes


Event = Request | HandOver | Refused


class _Phase(enum.Enum):
    HEAD = enum.auto()  # between requests, or a head is coming
    BODY = enum.auto()  # the body of a request for the lane is coming
    WHOLE = enum.auto()  # a request was told, its answer is due
    STREAM = enum.auto()  # the head of its answer has left, the body has not ended
    OVER = enum.auto()  # no further request is taken


class Machine:
    """What is said on one connection. Told what was read by `receive`, asked by `next_event`.

    Args:
      is_hot: whether the lane answers this method on this target, as it was sent.
      body_bytes_max: requests with a longer body are handed over.
      date: gives the value of the Date header.
    """

    __slots__ = (
        "_body_bytes_max", "_closes", "_date", "_framing_bytes", "_has_body", "_head", "_is_hot",
        "_is_last", "_judged_bytes", "_limits", "_phase", "_received",
    )  # fmt: skip

    def __init__(
        self,
        limits: HttpLimits,
        is_hot: Callable[[str, bytes], bool],
        body_bytes_max: int,
        date: Callable[[], bytes],
    ) -> None:
        self._limits = limits
        self._is_hot = is_hot
        self._body_bytes_max = body_bytes_max
        self._date = date
        self._phase = _Phase.HEAD
        self._received = bytearray()
        self._judged_bytes = 0  # of the head that is coming
        self._head: Head | None = None  # of the request that is being received or answered
        self._framing_bytes = 0  # of its body
        self._has_body = True  # the answer that is being streamed
        self._closes = False  # the next answer whose head is written says that it is the last
        self._is_last = False

    @property
    def can_go_on(self) -> bool:
        """Whether the connection may be kept: false as soon as it is to end."""
        return self._phase is not _Phase.OVER

    @property
    def has_unread(self) -> bool:
        """Whether something was received that is part of no whole head so far."""
        return self._phase is not _Phase.BODY and bool(self._received)

    @property
    def is_in_head(self) -> bool:
        """Whether a head has begun, and its end is waited for."""
        return self._phase is _Phase.HEAD and bool(self._received)

    @property
    def is_in_body(self) -> bool:
        """Whether the rest of a request's body is waited for."""
        return self._phase is _Phase.BODY

    @property
    def coming_head(self) -> Head:
        """The head of the request whose body is waited for."""
        assert self._phase is _Phase.BODY
        assert self._head is not None
        return self._head

    @property
    def is_full(self) -> bool:
        """Whether no more may be received before an answer is complete."""
        is_answering = self._phase is _Phase.WHOLE or self._phase is _Phase.STREAM
        return is_answering and len(self._received) > PIPELINED_BYTES_MAX

    def close_after(self) -> None:
        """The next answer is the last one, and says so.

        One that is being streamed has said otherwise: its client may have asked again already.
        """
        self._closes = True
        self._is_last |= self._phase in (_Phase.BODY, _Phase.WHOLE)

    def receive(self, data: bytes) -> None:
        """Take what was read. Behind a last request nobody will read it."""
        is_answering = self._phase is _Phase.WHOLE or self._phase is _Phase.STREAM
        if not (self._phase is _Phase.OVER or (is_answering and self._is_last)):
            self._received += data

    def next_event(self) -> Event | None:
        """What was received. None: more must be received, or an answer completed, before."""
        match self._phase:
            case _Phase.HEAD:
                return self._read_head() if self._received else None
            case _Phase.BODY:
                return self._read_body()
            case _Phase.WHOLE | _Phase.STREAM | _Phase.OVER:
                return None

    def give_up_body(self) -> Head:
        """The rest of a body is waited for no more. An answer is due; it is the last one."""
        head = self.coming_head
        self._phase = _Phase.WHOLE
        self._is_last = True
        self._received = bytearray()
        return head

    def answer(self, status: int, headers: Headers, body: bytes) -> bytes:
        """The whole answer to the request that was told last."""
        head = self._expect_head(_Phase.WHOLE)
        self._note_close(headers)
        framing = b"" if status in (204, 304) else b"content-length: %d\r\n" % len(body)
        written = write_head(status, headers, framing, self._date(), self._is_last)
        self._end_answer()
        return written + body if has_body(head.method, status) else written

    def begin(self, status: int, headers: Headers) -> bytes:
        """The head of an answer whose body follows in chunks."""
        head = self._expect_head(_Phase.WHOLE)
        self._note_close(headers)
        self._has_body = has_body(head.method, status)
        framing = b"" if status in (204, 304) else CHUNKED
        written = write_head(status, headers, framing, self._date(), self._is_last)
        self._phase = _Phase.STREAM
        return written

    def chunk(self, payload: bytes) -> bytes:
        """A part of the body. Of an empty one nothing is sent: it would say that the body ends."""
        assert self._phase is _Phase.STREAM
        if not payload or not self._has_body:
            return b""
        return b"%x\r\n%b\r\n" % (len(payload), payload)

    def finish(self) -> bytes:
        """The end of the body. Without it a client sees that the answer was broken off."""
        assert self._phase is _Phase.STREAM
        self._end_answer()
        return b"0\r\n\r\n" if self._has_body else b""

    def _read_head(self) -> Event | None:
        received = self._received
        fault = find_fault(received, self._limits, self._judged_bytes)
        if fault is not None:
            return self._refuse(fault)
        end = received.find(_HEAD_END, max(self._judged_bytes - 3, 0))
        if end < 0:
            self._judged_bytes = len(received)
            return None
        end += len(_HEAD_END)
        head = read_head(bytes(received[:end]))
        if head is None or not self._is_hot(head.method, head.target):
            return self._hand_over()
        # A GET has its answer before its body, if it has one: that is not how the lane reads.
        framing = find_framing(head, 0 if head.method == "GET" else self._body_bytes_max)
        if framing is None:
            return self._hand_over()
        del received[:end]
        self._head = head
        self._framing_bytes = framing.body_bytes
        self._is_last |= framing.is_last or self._closes
        self._phase = _Phase.BODY
        return self._read_body()

    def _read_body(self) -> Request | None:
        end = self._framing_bytes
        if len(self._received) < end:
            return None
        body = bytes(self._received[:end])
        del self._received[:end]
        self._phase = _Phase.WHOLE
        assert self._head is not None
        return Request(self._head, body)

    def _hand_over(self) -> HandOver:
        received = bytes(self._received)
        self._end()
        return HandOver(received)

    def _refuse(self, fault: Refusal) -> Refused:
        self._end()
        answer = error_answer(fault.status, ErrorCode.INVALID_REQUEST, fault.message)
        return Refused(fault.status, answer)

    def _expect_head(self, phase: _Phase) -> Head:
        assert self._phase is phase, f"no answer is due in {self._phase}"
        assert self._head is not None
        return self._head

    def _note_close(self, headers: Headers) -> None:
        if CLOSE in headers:
            self._is_last = True

    def _end_answer(self) -> None:
        self._head = None
        self._judged_bytes = 0
        if self._is_last:
            self._end()
        else:
            self._phase = _Phase.HEAD

    def _end(self) -> None:
        self._phase = _Phase.OVER
        self._received = bytearray()
