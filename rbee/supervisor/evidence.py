"""What shows why a worker failed: taken before it is killed, and reported when it is gone.

Rule 1: nobody waits long for it: `secure` is cancelled by its caller, `report` bounds itself.
Rule 2: a report holds no prompt, no answer and no secret: of requests only ids and counts.
"""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import trio

from rbee import __version__
from rbee.supervisor.crashes import CRASH_BYTES_MAX, Crashes
from rbee.supervisor.devices import GpuSurvey
from rbee.supervisor.last_lines import LastLines, Line
from rbee.supervisor.restart import Verdict
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from rbee.threads import thread_refusals

# Stacks were told when this long no line has come.
QUIET_S: Final = 0.03

WRITE_S_MAX: Final = 1.0  # a report that has not reached its file by then stays in memory
REQUESTS_MAX: Final = 200
CORRELATION_CHARS_MAX: Final = 64


class CrashRecorder:
    """Implements `slot.SlotEvidence`.

    Args:
      gpus: asks for the state of the GPUs. May block, and is called in a thread.
      seen: what was last seen of them, for a worker that uses one.
      clock: what time it is, since 1970.
    """

    def __init__(
        self,
        lines: LastLines,
        crashes: Crashes,
        gpus: Callable[[], GpuSurvey],
        seen: Callable[[str], GpuSurvey | None] = lambda _worker_id: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lines = lines
        self._crashes = crashes
        self._gpus = gpus
        self._seen = seen
        self._clock = clock
        self._stacks: dict[str, list[Line]] = {}
        self._surveys: dict[str, GpuSurvey] = {}
        # A driver that hangs holds one thread, not one more with each report.
        self._one_survey = trio.CapacityLimiter(1)
        self._one_write = trio.CapacityLimiter(1)  # likewise a disk

    async def secure(self, worker: Worker) -> None:
        """Have it tell the stacks of its threads, and look at its GPU."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_stacks, worker)
            if worker.engine == "exllamav2":
                nursery.start_soon(self._survey, worker)

    def report(
        self, plan: WorkerPlan, worker: Worker | None, ending: WorkerExit, verdict: Verdict
    ) -> str:
        """Gather what is known of a worker that failed and is gone, or was never started.

        Returns:
          The report's id.
        """
        slot_id = plan.worker_id
        stacks = self._stacks.pop(slot_id, [])
        survey = self._surveys.pop(slot_id, None) or self._seen(slot_id)
        document = {
            **self._head(plan, worker, ending, verdict),
            **({} if worker is None else _last_signs(worker)),
            "gpus": None if survey is None else msgspec.to_builtins(survey),
            "stacks": [line.text for line in stacks],
        }
        lines = self._lines.of(slot_id)
        self._lines.forget(slot_id)
        crash = self._crashes.add(_bounded(document, lines))
        self._lines.info("crash_reported", crash=crash.id, cause=crash.cause)
        return crash.id

    async def write(self, crash_id: str) -> None:
        """Put a report on the disk, so that it outlives us."""
        problem = f"not within {WRITE_S_MAX:g} s"
        with trio.move_on_after(WRITE_S_MAX) as waiting:
            try:
                with thread_refusals():
                    await trio.to_thread.run_sync(
                        self._crashes.write,
                        crash_id,
                        abandon_on_cancel=True,
                        limiter=self._one_write,
                    )
            except OSError as error:
                problem = error.strerror or type(error).__name__
            else:
                problem = ""
        if problem or waiting.cancelled_caught:
            self._lines.warning("crash_report_not_written", crash=crash_id, problem=problem)

    def forget(self, worker: Worker) -> None:
        """It ended well: nothing is kept of it."""
        self._lines.forget(worker.worker_id)
        self._stacks.pop(worker.worker_id, None)
        self._surveys.pop(worker.worker_id, None)

    async def _take_stacks(self, worker: Worker) -> None:
        before = count = self._lines.count(worker.worker_id)
        worker.child.ask_stacks()
        try:
            while True:
                await trio.sleep(QUIET_S)
                now = self._lines.count(worker.worker_id)
                if now == count and now > before:
                    return
                count = now
        finally:
            self._stacks[worker.worker_id] = self._lines.since(worker.worker_id, before)

    async def _survey(self, worker: Worker) -> None:
        with contextlib.suppress(OSError), thread_refusals():  # the report does without
            self._surveys[worker.worker_id] = await trio.to_thread.run_sync(
                self._gpus, abandon_on_cancel=True, limiter=self._one_survey
            )

    def _head(
        self, plan: WorkerPlan, worker: Worker | None, ending: WorkerExit, verdict: Verdict
    ) -> dict[str, Any]:
        now = datetime.fromtimestamp(self._clock(), UTC)
        stamp = now.isoformat(timespec="milliseconds").removesuffix("+00:00")
        short = stamp.replace("-", "").replace(":", "")
        assert verdict.failure is not None
        pid = None if worker is None else worker.pid
        return {
            "id": f"{short}Z-{plan.worker_id}-{pid or 0}",
            "time": f"{stamp}Z",
            "slot": plan.worker_id,
            "model": plan.welcome.model.name,
            "engine": plan.welcome.model.engine,
            "pid": pid,
            "cause": verdict.failure.cause.value,
            "how": str(ending),
            "version": __version__,
            "exit_code": ending.exit_code,
            "signal": ending.signal,
            "said": ending.said,
            "last_state": ending.last_state.value,
            "ready_for_s": ending.ready_for_s,
            "failures": verdict.failures,
            "restart_in_s": verdict.delay_s,
            "stays_empty": verdict.reason,
            "remedy": verdict.failure.remedy,
        }


def _last_signs(worker: Worker) -> dict[str, Any]:
    now_s = trio.current_time()
    requests = worker.requests
    return {
        "uptime_s": round(now_s - worker.started_s, 3),
        "verdict": worker.judgement.verdict.value,
        "verdict_reason": worker.judgement.reason,
        "pace": msgspec.to_builtins(worker.pace),
        "beats": [
            {
                "age_s": round(now_s - beat_s, 3),
                **msgspec.structs.asdict(msgspec.structs.replace(beat, requests={})),
                "phase": beat.phase.value,
                "requests": len(beat.requests),
            }
            for beat_s, beat in worker.last_beats
        ],
        "requests_open": len(requests),
        "requests": [
            {
                "request_id": each.request_id,
                "correlation_id": each.correlation_id[:CORRELATION_CHARS_MAX],
                "tokens": each.tokens,
                "was_cancelled": each.is_cancelled,
            }
            for each in requests[:REQUESTS_MAX]
        ],
    }


def _bounded(document: dict[str, Any], lines: list[Line]) -> bytes:
    """The report with as many of the last lines as fit."""
    while True:
        told = [{"time": _stamp(line.time_s), "text": line.text} for line in lines]
        raw = msgspec.json.encode({**document, "lines": told})
        if len(raw) <= CRASH_BYTES_MAX:
            return raw
        if lines:
            lines = lines[len(lines) // 2 + 1 :]
        else:
            document = {**document, "stacks": document["stacks"][: len(document["stacks"]) // 2]}


def _stamp(time_s: float) -> str:
    moment = datetime.fromtimestamp(time_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
