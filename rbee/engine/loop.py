"""The worker's main thread: receive what is there, do one engine step, send one Step.

Rule 1: this thread owns the engine and the dialogue. The link thread does not touch them.
Rule 2: the phase is published before a call that may block, never after.
Rule 3: a request ends by exactly one last word, whatever happens to it.
"""

import errno
import gc
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, assert_never

from rbee import __version__
from rbee.dialogue import WorkerDialogue
from rbee.engine import quick_steps
from rbee.engine.engine import Engine, EngineInfo, JobFailed, LoadSpec, Sampled
from rbee.engine.link_faults import misbehave
from rbee.engine.link_thread import LinkThread, Published
from rbee.engine.own_user import why_unreadable
from rbee.engine.requests import Admission, Running, start, take
from rbee.errors import EngineError, ErrorCode, ExitCode, RemoteProtocolError, RequestError
from rbee.wire import (
    SHORT_TEXT_MAX,
    Bye,
    Cancel,
    Delta,
    Drain,
    Failed,
    Generate,
    Hello,
    Loading,
    Phase,
    Ready,
    Step,
    Stop,
    Welcome,
)

# Told to the supervisor at most this often while a model loads; a new phase at once.
LOADING_TOLD_EVERY_S: Final = 0.2

# Counters are published at most this often: beats, which carry them, are far rarer.
PUBLISH_EVERY_S: Final = 0.05

FRAMES_MAX: Final = 12  # of a bug's traceback

# This process, or the whole box, has as many open as it may.
NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)

EngineFor = Callable[[str], Engine]
"""Makes the engine of that name. Raises EngineError when it cannot be had here."""


class _StopAsked(Exception):  # no error: the way out of a load
    """The supervisor said Stop while the model was loading."""


class WorkerLoop:
    """One worker's life, from Hello to Bye."""

    def __init__(
        self,
        link: LinkThread,
        secret: bytes,
        engine_for: EngineFor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._secret = secret
        self._engine_for = engine_for
        self._clock = clock
        self._dialogue = WorkerDialogue()
        self._running: dict[int, Running] = {}
        self._steps = 0
        self._tokens = 0
        self._read_tokens = 0
        self._is_draining = False
        self._next_deadline_s = math.inf  # of the running requests; may be of one that is done
        self._published_s = 0.0
        self._has_begun = False  # a request that was not published yet
        self._told_s = 0.0
        self._told_phase = Phase.IMPORTING

    def run(self) -> ExitCode:
        """Serve until told to end, or until the engine cannot go on.

        Returns:
          The process's exit code; the supervisor has been told it by a Bye.
        """
        engine: Engine | None = None
        try:
            welcome = self._greet()
            if welcome is None:
                return self._bye("stopped before it was welcomed", ExitCode.OK)
            engine = self._engine_for(welcome.model.engine)
            admission = self._load(engine, welcome)
            return self._bye(self._serve(engine, admission), ExitCode.OK)
        except _StopAsked:
            return self._bye("stopped while loading", ExitCode.OK)
        except EngineError as error:
            return self._bye(str(error), error.exit_code)
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS:
                raise
            return self._bye("the system gives no more descriptors", ExitCode.OS_ERROR)
        except RemoteProtocolError as error:
            return self._bye(f"the supervisor broke the protocol: {error}", ExitCode.PROTOCOL)
        finally:
            if engine is not None:
                engine.close()

    def _greet(self) -> Welcome | None:
        self._link.send(self._dialogue.send(Hello(self._secret, os.getpid(), __version__)))
        while True:
            for frames in self._link.take(None):
                match self._dialogue.receive(frames):
                    case Welcome() as welcome:
                        return welcome
                    case Stop() | Drain():
                        return None
                    case message:
                        raise RemoteProtocolError(f"{type(message).__name__} before Welcome")

    def _load(self, engine: Engine, welcome: Welcome) -> Admission:
        fault = welcome.model.synthetic.fault if welcome.model.engine == "synthetic" else None
        self._link.ignores_stop = fault in ("ignore_stop", "ignore_all", "stray_child")
        self._progress(Phase.IMPORTING, 0.0)
        self._link.start_beating(welcome.beat_s)
        path = Path(welcome.path) if welcome.path else None
        spec = LoadSpec(welcome.model, path, welcome.threads, welcome.vram_bytes_max)
        try:
            info = engine.load(spec, self._progress)
        except PermissionError as error:  # whom an engine does not expect, as of a closed folder
            message = f"{error.filename}: {why_unreadable(error)}"
            raise EngineError(message, ExitCode.CONFIG) from error
        is_cache_shared = welcome.model.share_cache == "all"
        admission = Admission(info, engine.tokenizer, is_cache_shared=is_cache_shared)
        self._publish(Phase.IDLE, vram_bytes=info.vram_bytes)
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not look at it at each turn
        self._link.send(self._dialogue.send(_ready(info)))
        return admission

    def _progress(self, phase: Phase, fraction: float) -> None:
        if self._link.stop_asked:
            raise _StopAsked
        now_s = self._clock()
        if phase is self._told_phase and now_s - self._told_s < LOADING_TOLD_EVERY_S:
            return
        self._told_phase, self._told_s = phase, now_s
        self._publish(phase)
        bounded = min(1.0, max(0.0, fraction))
        self._link.send(self._dialogue.send(Loading(phase, bounded)))

    def _serve(self, engine: Engine, admission: Admission) -> str:
        while True:
            for frames in self._link.take(0 if self._running else None):
                if not self._obey(engine, admission, frames):
                    return "stopped"
            if self._running:
                self._expire(engine)
                self._publish_progress(engine)
                self._step(engine)
            if not self._running:
                if self._is_draining:
                    return "drained"
                self._publish(Phase.IDLE)

    def _obey(self, engine: Engine, admission: Admission, frames: list[bytes]) -> bool:
        """Do what one message says. False: it is time to end."""
        match self._dialogue.receive(frames):
            case Generate() as message:
                self._begin(engine, admission, message)
            case Cancel(request_id=request_id):
                self._cancel(engine, request_id)
            case Drain():
                self._is_draining = True
            case Stop():
                return False
            case Welcome():
                raise RemoteProtocolError("Welcome came twice")
            case message:
                assert_never(message)
        return True

    def _begin(self, engine: Engine, admission: Admission, message: Generate) -> None:
        try:
            job = admission.job(message)
            engine.enqueue(job)
        except RequestError as error:
            self._fail(message.request_id, error)
            return
        except (EngineError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001
            # A bug that one request shows must not take the others along. A panic of a library
            # in Rust is no Exception.
            where = f"request {message.request_id} correlation_id={message.correlation_id}"
            print(f"bug in {where}: {_place_of(error)}", file=sys.stderr, flush=True)  # noqa: T201
            bug = RequestError(ErrorCode.INTERNAL_ERROR, "an internal error in the worker")
            self._fail(message.request_id, bug)
            return
        resumed = admission.pieces(message.resume_ids)
        running = start(message, job, self._clock(), resumed)
        self._running[message.request_id] = running
        self._has_begun = True
        self._next_deadline_s = min(self._next_deadline_s, running.deadline_s)

    def _cancel(self, engine: Engine, request_id: int) -> None:
        if self._running.pop(request_id, None) is not None:
            engine.cancel(request_id)
        if self._dialogue.is_open(request_id):
            self._fail(request_id, RequestError(ErrorCode.CANCELLED, "cancelled"))

    def _expire(self, engine: Engine) -> None:
        now_s = self._clock()
        if now_s < self._next_deadline_s:
            return
        late = [running for running in self._running.values() if now_s >= running.deadline_s]
        for running in late:
            engine.cancel(running.request_id)
            del self._running[running.request_id]
            error = RequestError(ErrorCode.DEADLINE_EXCEEDED, "the deadline of this request passed")
            self._fail(running.request_id, error)
        left = (running.deadline_s for running in self._running.values())
        self._next_deadline_s = min(left, default=math.inf)

    def _step(self, engine: Engine) -> None:
        deltas: list[Delta] = []
        failed: list[tuple[int, RequestError]] = []
        for result in self._compute(engine):
            running = self._running.get(result.job_id)
            if running is None:  # ended by its stop string or deadline before the engine knew
                continue
            match result:
                case Sampled():
                    self._take(engine, running, result, deltas)
                case JobFailed(error=error):
                    del self._running[result.job_id]
                    failed.append((result.job_id, error))
        if deltas:
            # Somebody waits for a first token and for an end; what is between may rest a little.
            may_rest = not any(each.finish or each.prompt_tokens for each in deltas)
            self._link.send(
                self._dialogue.send(Step(self._steps, tuple(deltas))), may_rest=may_rest
            )
        for job_id, error in failed:  # their last words, so after what this step brought them
            self._fail(job_id, error)
        fault = getattr(engine, "link_fault", None)  # the synthetic engine's
        if fault is not None:
            misbehave(fault, self._link, Step(self._steps, tuple(deltas)))

    def _compute(self, engine: Engine) -> quick_steps.Results:
        """One engine step; several where they are quick and nobody waits for what they bring."""
        steps: list[quick_steps.Results] = []
        began_s = self._clock()
        while True:
            results = engine.step()
            steps.append(results)
            self._steps += 1
            elapsed_s = self._clock() - began_s
            if engine.read_tokens != self._read_tokens:
                self._link.reading.note(engine.read_tokens - self._read_tokens, elapsed_s)
                self._read_tokens = engine.read_tokens
            if (
                not quick_steps.fits_another(len(steps), elapsed_s)
                or self._link.has_received
                or not quick_steps.may_rest(results, self._running)
            ):
                self._link.step_times.note(elapsed_s / len(steps))
                return quick_steps.join(steps)

    def _take(
        self, engine: Engine, running: Running, sampled: Sampled, deltas: list[Delta]
    ) -> None:
        delta = take(running, sampled)
        if delta is None:
            return
        deltas.append(delta)
        self._tokens += len(delta.token_ids)
        if delta.finish is not None:
            del self._running[running.request_id]
            if sampled.finish is None:
                engine.cancel(running.request_id)  # a stop string: the engine does not know

    def _fail(self, request_id: int, error: RequestError) -> None:
        failed = Failed(request_id, error.code, error.message[:SHORT_TEXT_MAX], error.param)
        self._link.send(self._dialogue.send(failed))

    def _publish_progress(self, engine: Engine) -> None:
        """Publish before a step: phase and requests at once, counters often enough for a beat."""
        now_s = self._clock()
        phase = Phase.DRAINING if self._is_draining else engine.phase
        is_known = phase is self._link.published.phase and not self._has_begun
        if not is_known or now_s - self._published_s >= PUBLISH_EVERY_S:
            self._published_s, self._has_begun = now_s, False
            self._publish(phase)

    def _publish(self, phase: Phase, vram_bytes: int | None = None) -> None:
        told = self._link.published
        oldest_s = next(iter(self._running.values())).started_s if self._running else None
        self._link.published = Published(
            phase=phase,
            step=self._steps,
            tokens=self._tokens,
            requests={each.request_id: each.tokens for each in self._running.values()},
            oldest_request_s=oldest_s,
            vram_bytes=told.vram_bytes if vram_bytes is None else vram_bytes,
            read_tokens=self._read_tokens,
            prompt_tokens=sum(
                each.prompt_tokens + each.tokens
                for each in self._running.values()
                if not each.has_told_prompt
            ),
        )

    def _bye(self, reason: str, exit_code: ExitCode) -> ExitCode:
        print(f"worker ends: {reason}", file=sys.stderr, flush=True)  # noqa: T201
        self._link.published = replace(self._link.published, phase=Phase.DRAINING)
        self._link.send(self._dialogue.send(Bye(reason[:SHORT_TEXT_MAX], int(exit_code))))
        self._link.close()
        return exit_code


def _place_of(bug: BaseException) -> str:
    """Type and place of an exception, on one line. Its message may quote the prompt."""
    frames = traceback.extract_tb(bug.__traceback__)[-FRAMES_MAX:]
    places = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(bug).__module__}.{type(bug).__qualname__} at {places}"


def _ready(info: EngineInfo) -> Ready:
    return Ready(
        engine=info.engine,
        device=info.device,
        context_length=info.context_length,
        batch_size=info.batch_size,
        features=tuple(sorted(feature.value for feature in info.features)),
        vram_bytes=info.vram_bytes,
        detail=info.detail,
    )
