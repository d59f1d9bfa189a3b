"""Who may say what when on a link: both ends of the worker protocol as state machines.

Sans-IO: frames in, messages out, and the other way round. Each end holds the other to the
rules, so that what reaches the pool or the engine is always in order.

Rule 1: the worker says Hello with the secret, is answered Welcome, and is Ready once.
Rule 2: every Generate is answered by deltas without gap or repetition, then by exactly one
        last word: a delta with ``finish``, or Failed. A Cancel is answered so too.
Rule 3: what breaks a rule is a `RemoteProtocolError` and the end of that peer, or a
        `LocalProtocolError` and our bug.
"""

import enum
import hmac
from dataclasses import dataclass
from typing import Final, assert_never

from rbee.ask import Ask
from rbee.errors import LocalProtocolError, RemoteProtocolError
from rbee.wire import (
    Beat,
    Bye,
    Cancel,
    Delta,
    Drain,
    Failed,
    FromSupervisor,
    FromWorker,
    Generate,
    Hello,
    Loading,
    Ready,
    Step,
    Stop,
    Welcome,
    decode_from_supervisor,
    decode_from_worker,
    encode,
)

# Requests open at once on one link. Above any batch size that `Ready` may state.
OPEN_REQUESTS_MAX: Final = 65_536


class Stage(enum.Enum):
    """How far a link has come."""

    STRANGER = "stranger"  # before Hello
    GREETED = "greeted"  # Hello was good; Welcome is due
    LOADING = "loading"
    SERVING = "serving"
    LEFT = "left"  # Bye was said


@dataclass(slots=True)
class OpenRequest:
    """A request on the link, as the supervisor's end sees it."""

    request_id: int
    correlation_id: str
    tokens: int  # delivered so far, the resumed ones too
    is_cancelled: bool = False


class SupervisorDialogue:
    """The supervisor's end of one link.

    Args:
      secret: what the worker's Hello must bear.
      pid: the process that was started; Hello must name it.
    """

    def __init__(self, secret: bytes, pid: int) -> None:
        self._secret = secret
        self._pid = pid
        self._stage = Stage.STRANGER
        self._open: dict[int, OpenRequest] = {}
        self._is_closing = False

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def open_requests(self) -> int:
        """Requests that the worker still owes a last word, cancelled ones included."""
        return len(self._open)

    @property
    def requests(self) -> list[OpenRequest]:
        """What is open now. For looking only."""
        return list(self._open.values())

    def welcome(self, message: Welcome) -> list[bytes]:
        if self._stage is not Stage.GREETED:
            raise LocalProtocolError(f"Welcome may not be said to a {self._stage.value} worker")
        self._stage = Stage.LOADING
        return encode(message)

    def generate(  # noqa: PLR0913, PLR0917  # what a Generate holds
        self,
        request_id: int,
        ask: Ask,
        remaining_ms: int,
        correlation_id: str,
        resume_ids: tuple[int, ...] = (),
        cache_salt: bytes = b"",
    ) -> list[bytes]:
        """Open a request, and hold the worker to its answer from now on."""
        if self._stage is not Stage.SERVING or self._is_closing:
            raise LocalProtocolError(f"no request may be sent to a {self._stage.value} worker")
        if request_id in self._open:
            raise LocalProtocolError(f"request {request_id} is open already")
        if len(self._open) >= OPEN_REQUESTS_MAX:
            raise LocalProtocolError(f"more than {OPEN_REQUESTS_MAX} open requests")
        self._open[request_id] = OpenRequest(request_id, correlation_id, len(resume_ids))
        return encode(
            Generate(request_id, ask, remaining_ms, correlation_id, resume_ids, cache_salt)
        )

    def cancel(self, request_id: int) -> list[bytes] | None:
        """Ask the worker to end a request. None: nothing to ask, it is done or asked already."""
        request = self._open.get(request_id)
        if request is None or request.is_cancelled:
            return None
        request.is_cancelled = True
        return encode(Cancel(request_id))

    def drain(self) -> list[bytes]:
        self._is_closing = True
        return encode(Drain())

    def stop(self) -> list[bytes]:
        self._is_closing = True
        return encode(Stop())

    def receive(self, frames: list[bytes]) -> FromWorker | None:
        """Read one message from the worker.

        What comes late for cancelled requests is left out: a `Step` may come back with fewer
        deltas than were sent, a `Failed` as None. Their last words are counted off all the same.

        Raises:
          RemoteProtocolError: not a message, or not one that may come now.
        """
        message = decode_from_worker(frames)
        match message:
            case Hello():
                self._check_hello(message)
            case Loading():
                self._expect(message, Stage.LOADING)
            case Ready():
                self._expect(message, Stage.LOADING)
                self._stage = Stage.SERVING
            case Step():
                self._expect(message, Stage.SERVING)
                return self._take_step(message)
            case Failed():
                self._expect(message, Stage.SERVING)
                return self._take_failed(message)
            case Beat():  # comes from another thread of the worker: may cross a Bye
                self._expect(message, Stage.LOADING, Stage.SERVING, Stage.LEFT)
            case Bye():
                self._expect(message, Stage.GREETED, Stage.LOADING, Stage.SERVING)
                self._stage = Stage.LEFT
            case _:
                assert_never(message)
        return message

    def is_open(self, request_id: int) -> bool:
        """Whether the last word on it has not come, cancelled or not."""
        return request_id in self._open

    def forget(self, request_id: int) -> None:
        """Take back a `generate` whose frames could not be sent."""
        del self._open[request_id]

    def _check_hello(self, hello: Hello) -> None:
        self._expect(hello, Stage.STRANGER)
        if not hmac.compare_digest(hello.secret, self._secret):
            raise RemoteProtocolError("Hello bears the wrong secret")
        if hello.pid != self._pid:
            raise RemoteProtocolError(f"Hello comes from pid {hello.pid}, expected {self._pid}")
        self._stage = Stage.GREETED

    def _expect(self, message: FromWorker, *stages: Stage) -> None:
        if self._stage not in stages:
            name = type(message).__name__
            raise RemoteProtocolError(f"{name} may not come from a {self._stage.value} worker")

    def _take_failed(self, failed: Failed) -> Failed | None:
        request = self._open.pop(failed.request_id, None)
        if request is None:
            raise RemoteProtocolError(f"request {failed.request_id} failed, but was not open")
        return None if request.is_cancelled else failed

    def _take_step(self, step: Step) -> Step:
        kept: list[Delta] | None = None  # made once something has to be left out
        for at, delta in enumerate(step.deltas):
            request = self._open.get(delta.request_id)
            if request is None:
                raise RemoteProtocolError(f"a delta for request {delta.request_id}: not open")
            if delta.index != request.tokens:
                raise RemoteProtocolError(
                    f"token {delta.index} of request {delta.request_id} is out of turn,"
                    f" expected {request.tokens}"
                )
            request.tokens += len(delta.token_ids)
            if request.is_cancelled:
                if kept is None:
                    kept = list(step.deltas[:at])
            elif kept is not None:
                kept.append(delta)
            if delta.finish is not None:
                del self._open[delta.request_id]
        return step if kept is None else Step(step.step, tuple(kept))


class WorkerDialogue:
    """The worker's end of one link. ``send`` turns messages into frames and keeps the books."""

    def __init__(self) -> None:
        self._stage = Stage.STRANGER
        self._tokens: dict[int, int] = {}  # open request -> tokens delivered
        self._is_closing = False

    @property
    def stage(self) -> Stage:
        return self._stage

    def send(self, message: FromWorker) -> list[bytes]:
        """Turn ``message`` into frames.

        Raises:
          LocalProtocolError: it may not be said now.
        """
        match message:
            case Hello():
                self._local(message, Stage.STRANGER)
                self._stage = Stage.GREETED
            case Loading():
                self._local(message, Stage.LOADING)
            case Ready():
                self._local(message, Stage.LOADING)
                self._stage = Stage.SERVING
            case Step():
                self._local(message, Stage.SERVING)
                for delta in message.deltas:
                    self._count(delta)
            case Failed():
                self._local(message, Stage.SERVING)
                if self._tokens.pop(message.request_id, None) is None:
                    raise LocalProtocolError(f"request {message.request_id} is not open")
            case Beat():
                self._local(message, Stage.LOADING, Stage.SERVING, Stage.LEFT)
            case Bye():
                self._local(message, Stage.GREETED, Stage.LOADING, Stage.SERVING)
                self._stage = Stage.LEFT
            case _:
                assert_never(message)
        return encode(message)

    def receive(self, frames: list[bytes]) -> FromSupervisor:
        """Read one message from the supervisor.

        Raises:
          RemoteProtocolError: not a message, or not one that may come now.
        """
        message = decode_from_supervisor(frames)
        match message:
            case Welcome():
                self._remote(message, Stage.GREETED)
                self._stage = Stage.LOADING
            case Generate(request_id=request_id, resume_ids=resume_ids):
                self._remote(message, Stage.SERVING)
                if self._is_closing:
                    raise RemoteProtocolError(f"request {request_id} came after Drain")
                if request_id in self._tokens:
                    raise RemoteProtocolError(f"request {request_id} is open already")
                self._tokens[request_id] = len(resume_ids)
            case Cancel():  # may cross the request's last word on its way
                self._remote(message, Stage.SERVING)
            case Drain() | Stop():
                self._is_closing = True
            case _:
                assert_never(message)
        return message

    def is_open(self, request_id: int) -> bool:
        return request_id in self._tokens

    @property
    def open_requests(self) -> dict[int, int]:
        """Open request -> tokens delivered. A copy."""
        return dict(self._tokens)

    def _count(self, delta: Delta) -> None:
        tokens = self._tokens.get(delta.request_id)
        if tokens is None or tokens != delta.index:
            raise LocalProtocolError(
                f"request {delta.request_id}: delta {delta.index}, at {tokens}"
            )
        if delta.finish is None:
            self._tokens[delta.request_id] = tokens + len(delta.token_ids)
        else:
            del self._tokens[delta.request_id]

    def _local(self, message: FromWorker, *stages: Stage) -> None:
        if self._stage not in stages:
            raise LocalProtocolError(
                f"{type(message).__name__} may not be said on a {self._stage.value} link"
            )

    def _remote(self, message: FromSupervisor, *stages: Stage) -> None:
        if self._stage not in stages:
            raise RemoteProtocolError(
                f"{type(message).__name__} may not come on a {self._stage.value} link"
            )
