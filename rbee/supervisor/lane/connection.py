"""One connection of the lane: a socket, its `Machine`, and the request that it answers now.

Rule 1: nothing here waits. The loop says what the socket is ready for and when time is up; the
        pool says, through the running `Generation`, what there is to tell.
Rule 2: bytes go straight to the kernel. What it does not take is parked, bounded for a stream,
        and no further request is read before it has left.
Rule 3: each request that has come in departs past the guard exactly once.
"""

import enum
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from rbee.errors import RequestError
from rbee.logs import Log
from rbee.supervisor.api.answers import JSON_TYPE, Answer
from rbee.supervisor.api.asgi_reply import STREAM_HEADERS
from rbee.supervisor.api.events import failure_events
from rbee.supervisor.api.generation import Generation
from rbee.supervisor.api.guard import Guard
from rbee.supervisor.api.hot import HotRoutes
from rbee.supervisor.api.request_body import body_timeout, check_body_headers
from rbee.supervisor.api.visit import Visit, read_headers
from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.lane.head import Head
from rbee.supervisor.lane.machine import HandOver, Machine, Refused, Request

_READ_BYTES: Final = 64 * 1024

# Requests of one client that are answered before the others get their turn.
_REQUESTS_PER_TURN: Final = 16

# Once shutdown has begun: how long an idle client's next request may be under way already, and
# how long one may still take to come.
_LAST_REQUEST_S: Final = 0.05
_LAST_WHOLE_S: Final = 1.0

_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what was not sent


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a lane have in common."""

    hot: HotRoutes
    guard: Guard
    limits: HttpLimits
    body_bytes_max: int  # larger bodies are not for the lane
    body_timeout_s: float
    date: Callable[[], bytes]
    log: Log


class Carrier(Protocol):
    """What a connection needs of the loop that carries it."""

    shared: Shared
    is_draining: bool

    def watch(self, connection: "Connection") -> None:
        """Its interest in the socket, or its deadline, has changed."""
        ...

    def call_soon(self, connection: "Connection") -> None:
        """Call its `proceed` at the next turn."""
        ...

    def hand_over(self, connection: "Connection", received: bytes) -> None:
        """The HTTP server is to carry on with its socket."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Its socket is about to be closed."""
        ...


class _State(enum.Enum):
    IDLE = enum.auto()  # between requests
    HEAD = enum.auto()  # a request's head is coming
    BODY = enum.auto()  # its body is coming
    ANSWERING = enum.auto()  # a generation runs
    LEAVING = enum.auto()  # the last answer was given; it is sent, and the client seen off
    CLOSED = enum.auto()


_RECEIVING: Final = frozenset({_State.IDLE, _State.HEAD, _State.BODY})


class Connection:
    """A client's connection. The `Reply` of the generation that it answers with.

    Args:
      sock: accepted, not blocking. Closed at the end, or handed over.
    """

    __slots__ = (
        "_carrier", "_generation", "_kept", "_machine", "_parked", "_send_due_s", "_shared",
        "_state", "_visit", "_wait_due_s", "peer", "sock", "tick",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, sock: socket.socket, peer: tuple[str, int] | None) -> None:
        shared = carrier.shared
        self.sock = sock
        self.peer = peer
        self.tick = -1
        self._carrier = carrier
        self._shared = shared
        self._machine = Machine(shared.limits, shared.hot.has, shared.body_bytes_max, shared.date)
        self._state = _State.HEAD
        self._wait_due_s = trio.current_time() + shared.limits.headers_timeout_s
        self._send_due_s = 0.0  # while something is parked
        self._parked = bytearray()
        self._kept: list[bytes] = []  # of a stream, until it is flushed
        self._visit: Visit | None = None
        self._generation: Generation | None = None

    @property
    def peer_name(self) -> str:
        return f"{self.peer[0]}:{self.peer[1]}" if self.peer else "unix"

    @property
    def wants_to_read(self) -> bool:
        """While an answer is parked, only the generation's client is listened to."""
        return not self._parked or self._state not in _RECEIVING

    @property
    def wants_to_write(self) -> bool:
        return bool(self._parked)

    @property
    def due_s(self) -> float:
        """When to call `expire`."""
        return min(self._wait_due_s, self._send_due_s) if self._parked else self._wait_due_s

    # --- for the loop

    def readable(self) -> None:
        """The client has said something, or hung up."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.abort("client_gone")
        elif self._state is not _State.LEAVING:
            self._machine.receive(data)
            self.proceed()

    def writable(self) -> None:
        """The kernel takes more."""
        sent = self._send_nowait(self._parked)
        del self._parked[:sent]
        if self._parked:
            self._send_due_s = trio.current_time() + self._shared.limits.send_deadline_s
        elif self._state is _State.LEAVING:
            self._see_off()
        elif self._state is not _State.CLOSED:
            self.proceed()
        self._carrier.watch(self)

    def proceed(self) -> None:
        """Act on what was received, as far as one turn goes."""
        for _ in range(_REQUESTS_PER_TURN):
            if self._parked and self._state in _RECEIVING:
                break
            match self._machine.next_event():
                case None:
                    break
                case Request(head, body):
                    self._serve(head, body)
                case HandOver(received):
                    self._carrier.hand_over(self, received)
                    return
                case Refused(status, answer):
                    self._refuse(status, answer)
                    return
        else:
            self._carrier.call_soon(self)
        if self._state in _RECEIVING:
            self._note_receiving()

    def expire(self) -> None:
        """Its deadline has passed."""
        if self._parked and trio.current_time() >= self._send_due_s:
            self._give_up()
        elif self._state is _State.ANSWERING:
            assert self._generation is not None
            self._generation.expire()
        elif self._state is _State.BODY:
            self._refuse_body()
        else:
            self.close()

    def drain(self) -> None:
        """Shutdown has begun: finish what runs, take nothing new."""
        self._machine.close_after()
        if self._state in _RECEIVING:
            may_take_s = _LAST_REQUEST_S
            if self._machine.is_in_head or self._machine.is_in_body:
                may_take_s = _LAST_WHOLE_S
            self._wait_due_s = min(self._wait_due_s, trio.current_time() + may_take_s)
            self._carrier.watch(self)

    def abort(self, outcome: str) -> None:
        """End it now, whatever runs: nobody hears what was not sent yet."""
        if self._state is _State.CLOSED:
            return
        if self._generation is not None:
            self._generation.abandon(outcome)
        if self._parked or self._state is _State.ANSWERING:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()
        self._depart()

    def close(self) -> None:
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._parked.clear()
        self._carrier.forget(self)
        self.sock.close()

    # --- for the generation: see `Reply`

    def answer(self, body: bytes) -> None:
        self._answer(Answer(200, [JSON_TYPE], body))

    def begin(self) -> None:
        """The head waits for the first of the body: they leave together."""

    def write(self, payload: bytes) -> None:
        self._kept.append(payload)

    def flush(self) -> None:
        if payload := b"".join(self._kept):
            self._send(self._stream_head() + self._machine.chunk(payload))
        self._kept.clear()
        if len(self._parked) > self._shared.limits.parked_bytes_max:
            self._give_up()

    def end(self, last_words: bytes) -> None:
        self._kept.append(last_words)
        payload = b"".join(self._kept)
        machine = self._machine
        self._send(self._stream_head() + machine.chunk(payload) + machine.finish())
        self._complete()

    def fail(self, error: RequestError) -> None:
        assert self._visit is not None
        if self._visit.status is None:
            self._answer(self._shared.guard.refuse(self._visit, error))
        else:
            self.end(failure_events(error, self._visit.correlation_id))

    # --- one request

    def _serve(self, head: Head, body: bytes) -> None:
        guard = self._shared.guard
        visit = self._visit = guard.arrive(head.method, read_headers(head.headers))
        try:
            guard.admit(visit)
            if head.method == "GET":
                self._get(head.path, visit)
            else:
                self._generate(head.path, visit, body)
        except RequestError as error:
            self._answer(guard.refuse(visit, error))
        except Exception as bug:  # noqa: BLE001  # it ends this request, and no other
            self._answer(guard.note_bug(visit, bug))

    def _get(self, path: str, visit: Visit) -> None:
        hot = self._shared.hot.gets[path]
        visit.route, visit.is_quiet = path, hot.is_quiet
        self._answer(hot.answer())

    def _generate(self, path: str, visit: Visit, body: bytes) -> None:
        route = self._shared.hot.posts[path]
        visit.route = path
        deadline_s = route.deadline(visit)
        check_body_headers(visit)
        generation = route.open(route.read(body), deadline_s, visit, self)
        generation.start(trio.current_time())
        self._generation = generation
        self._state = _State.ANSWERING
        self._wait_due_s = deadline_s
        self._carrier.watch(self)

    def _refuse_body(self) -> None:
        """The rest of a body has not come in time."""
        head = self._machine.give_up_body()
        guard = self._shared.guard
        visit = self._visit = guard.arrive(head.method, read_headers(head.headers))
        try:
            guard.admit(visit)
            visit.route = head.path
            raise body_timeout(self._shared.body_timeout_s)
        except RequestError as error:
            self._answer(guard.refuse(visit, error))

    def _stream_head(self) -> bytes:
        """The head of the stream, if it has not left."""
        assert self._visit is not None
        if self._visit.status is not None:
            return b""
        return self._machine.begin(200, self._shared.guard.dress(self._visit, 200, STREAM_HEADERS))

    def _answer(self, answer: Answer) -> None:
        assert self._visit is not None
        headers = self._shared.guard.dress(self._visit, answer.status, answer.headers)
        self._send(self._machine.answer(answer.status, headers, answer.body))
        self._complete()

    def _complete(self) -> None:
        """The answer is complete, as far as we are concerned."""
        self._depart()
        if self._state is _State.CLOSED:
            return
        if not self._machine.can_go_on:
            self._leave()
            return
        if self._state is _State.ANSWERING and self._machine.has_unread:
            self._carrier.call_soon(self)
        self._state = _State.IDLE
        self._wait_due_s = trio.current_time() + self._shared.limits.keep_alive_s
        self._carrier.watch(self)

    def _depart(self) -> None:
        visit, self._visit, self._generation = self._visit, None, None
        self._kept.clear()
        if visit is not None:
            self._shared.guard.depart(visit)

    def _note_receiving(self) -> None:
        """Each part of a request has its own time, from its begin."""
        limits = self._shared.limits
        if self._machine.is_in_body:
            state, timeout_s = _State.BODY, self._shared.body_timeout_s
        elif self._machine.is_in_head:
            state, timeout_s = _State.HEAD, limits.headers_timeout_s
        else:
            return  # idle, and has its deadline
        if state is not self._state:
            self._state = state
            timeout_s = min(timeout_s, _LAST_WHOLE_S) if self._carrier.is_draining else timeout_s
            self._wait_due_s = trio.current_time() + timeout_s
            self._carrier.watch(self)

    # --- the socket

    def _send(self, data: bytes) -> None:
        if self._parked:
            self._parked += data
            return
        sent = self._send_nowait(data)
        if sent < len(data) and self._state is not _State.CLOSED:
            self._parked += memoryview(data)[sent:]
            self._send_due_s = trio.current_time() + self._shared.limits.send_deadline_s
            self._carrier.watch(self)

    def _send_nowait(self, data: bytes | bytearray) -> int:
        if self._state is _State.CLOSED:
            return 0
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort("client_gone")
            return 0

    def _refuse(self, status: int, answer: bytes) -> None:
        self._shared.log.debug("request_refused", peer=self.peer_name, status=status)
        if not answer:  # another answer is under way: break it off
            self.abort("client_gone")
            return
        self._send(answer)
        if self._state is not _State.CLOSED:
            self._leave()

    def _give_up(self) -> None:
        self._shared.log.debug("client_given_up", peer=self.peer_name, reason="slow_client")
        self.abort("slow_client")

    def _leave(self) -> None:
        """Send what is left, then close so that the client can read it, even if it talks on."""
        self._state = _State.LEAVING
        if not self._parked:
            self._see_off()
        self._carrier.watch(self)

    def _see_off(self) -> None:
        """Let the client talk to the wall: closing now would reset, and lose our last word."""
        self._wait_due_s = trio.current_time() + self._shared.limits.linger_s
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
