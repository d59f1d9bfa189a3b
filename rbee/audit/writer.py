"""The audit log that is written: a thread of its own, so that no task ever waits for a disk.

Rule 1: `record` puts a note into a bounded queue. Full, it counts what is lost, and the count is
        recorded when there is room again.
Rule 2: who waits in `record_durably` is told once: when the entry is on the disk, or when that
        failed. A record may stand for a deed that was refused after all; never the other way.
Rule 3: trouble with the disk ends nothing. It is logged once, shown by `state`, and tried again
        each `RETRY_S`; the end of it is logged, too.
"""

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

import trio

from rbee.audit.audit import AuditState
from rbee.audit.chain import Note, key_id
from rbee.audit.events import AuditGap, Details, Outcome
from rbee.audit.trail import ACTOR, Trail
from rbee.config import AuditConfig
from rbee.errors import AuditError
from rbee.logs import Log
from rbee.threads import thread_refusals

# Notes that wait for a disk; some MiB. What concerns security has room of its own behind them.
WAITING_MAX: Final = 10_000
WAITING_DURABLE_MAX: Final = 11_000

# After a note the thread waits so long for more: waking it for each costs more than writing it.
GATHER_S: Final = 0.005
BATCH_MAX: Final = 500

RETRY_S: Final = 1.0
DURABLE_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 3.0

# A disk that takes longer for one call is told as failing.
SLOW_DISK_S: Final = 5.0

# The store is told the anchor so seldom: whoever watches it for changes sees each.
WITNESS_S: Final = 10.0

# With less than either left, the disk is low: a warning, while there is still time.
LOW_PART: Final = 0.1
LOW_BYTES: Final = 1 << 30


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits for an entry to be on the disk."""

    token: trio.lowlevel.TrioToken
    done: trio.Event = field(default_factory=trio.Event)
    problem: str | None = None

    def tell(self, problem: str | None) -> None:
        self.problem = problem
        with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
            self.token.run_sync_soon(self.done.set)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A note on its way to the disk."""

    note: Note
    waiter: _Waiter | None = None


@dataclass(slots=True, eq=False)
class _Rekeying:
    """Has its place among the notes: what comes behind it is sealed with this key."""

    key: bytes
    waiter: None = None


class AuditWriter:
    """Writes a trail from a thread of its own. `close` ends it.

    Raises:
      OSError: no thread can be started for it.
    """

    def __init__(self, trail: Trail, config: AuditConfig, log: Log) -> None:
        self._trail = trail
        self._is_closed_on_failure = config.on_failure == "closed"
        self._sync_s = config.sync_s
        self._log = log
        self._inbox: queue.SimpleQueue[_Waiting | _Rekeying | None] = queue.SimpleQueue()
        self._hurry = threading.Event()  # do not gather: somebody waits
        self._held: deque[_Waiting | _Rekeying] = deque()  # taken from the inbox, not written
        self._lost = 0
        self._lost_lock = threading.Lock()
        self._told_lost = 0
        self._has_told_take_over = False
        self._trouble = ""
        self._retry_at_s = 0.0
        self._is_low = False
        self._disk_since_s: float | None = None
        self._unsafe_since_s: float | None = None  # something was written, not synced
        self._witness_at_s: float | None = 0.0  # when the store is to be told; None: it knows
        self._witness_trouble = ""
        self._is_closing = False
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        with thread_refusals():
            self._thread.start()

    # --- from any thread

    def record(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        if self._waiting < WAITING_MAX:
            note = Note(details, actor, outcome, correlation_id, time.time_ns())
            self._inbox.put(_Waiting(note))
        else:
            self._lose()

    async def record_durably(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        note = Note(details, actor, outcome, correlation_id, time.time_ns())
        problem: str | None = "too many events wait for the disk"
        if self._has_ended:
            problem = self._trouble or "it is closed"
        if not self._has_ended and self._waiting < WAITING_DURABLE_MAX:
            waiter = _Waiter(trio.lowlevel.current_trio_token())
            self._inbox.put(_Waiting(note, waiter))
            self._hurry.set()
            with trio.move_on_after(DURABLE_TIMEOUT_S):
                await waiter.done.wait()
            problem = waiter.problem
            if not waiter.done.is_set():
                problem = f"the disk has not answered for {DURABLE_TIMEOUT_S} s"
        else:
            await trio.lowlevel.checkpoint()
            if not self._is_closed_on_failure:
                self._lose()
        if problem is not None and self._is_closed_on_failure:
            raise AuditError(f"{details.event.value} cannot be recorded: {problem}")

    def offer(self, key: bytes) -> None:
        """Take this key where another process seals with it already."""
        self._trail.offer(key)

    def rekey(self, key: bytes) -> None:
        """Seal with another key whatever is recorded from now on, and what is recorded says so.

        It is done in its turn; while the log cannot be written it waits, and all behind it.
        """
        self._inbox.put(_Rekeying(key))
        self._hurry.set()

    @property
    def state(self) -> AuditState:
        kind: Literal["recording", "disk_low", "failing"] = "recording"
        reason = self._trouble
        since_s = self._disk_since_s
        if reason:
            kind = "failing"
        elif since_s is not None and (stuck_s := time.monotonic() - since_s) > SLOW_DISK_S:
            kind, reason = "failing", f"the disk has not answered for {stuck_s:.0f} s"
        elif self._is_low:
            kind, reason = "disk_low", "the disk is nearly full"
        head = self._trail.head
        return AuditState(kind, reason, head.seq, head.hash, self._waiting, self._lost)

    def close(self) -> bool:
        """Write what waits, and end.

        Returns:
          Whether all of it is on the disk.
        """
        self._inbox.put(None)
        self._hurry.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        return not self._thread.is_alive() and not self._waiting and not self._trouble

    @property
    def _waiting(self) -> int:
        return self._inbox.qsize() + len(self._held)

    def _lose(self) -> None:
        with self._lost_lock:
            self._lost += 1

    # --- the thread

    def _run(self) -> None:
        try:
            while not self._is_closing:
                self._take_in()
                self._work()
        except Exception as bug:
            self._log.error("audit_stopped", exc_info=bug)
            self._trouble = "a bug has ended it; the log has its place"
            raise
        finally:
            self._has_ended = True
            for _ in range(self._inbox.qsize()):
                self._hold(self._inbox.get())
            self._fail_waiters(self._trouble or "it is closed")
            self._trail.close()

    def _work(self) -> None:
        has_waiter = any(each.waiter is not None for each in self._held)
        is_resting = self._trouble and time.monotonic() < self._retry_at_s
        if is_resting and not has_waiter and not self._is_closing:
            return
        self._disk_since_s = time.monotonic()
        try:
            self._write_out()
            self._make_safe()
        except OSError as error:
            self._note_trouble(error)
        else:
            self._note_health()
        finally:
            self._disk_since_s = None

    def _take_in(self) -> None:
        """Wait for notes, or until something else is due, and take in all that there are."""
        try:
            first = self._inbox.get(timeout=self._idle_s())
        except queue.Empty:
            return
        if isinstance(first, _Waiting) and first.waiter is None:
            self._hurry.wait(GATHER_S)
        self._hurry.clear()
        self._hold(first)
        for _ in range(self._inbox.qsize()):
            self._hold(self._inbox.get())

    def _hold(self, waiting: _Waiting | _Rekeying | None) -> None:
        if waiting is None:
            self._is_closing = True
        else:
            self._held.append(waiting)

    def _idle_s(self) -> float | None:
        if self._trouble:
            return RETRY_S
        due_s = [] if self._witness_at_s is None else [self._witness_at_s]
        if self._unsafe_since_s is not None:
            due_s.append(self._unsafe_since_s + self._sync_s)
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _write_out(self) -> None:
        """Write all that is held. After trouble, see whether writing goes at all."""
        is_trial = bool(self._trouble)
        while self._held or self._lost > self._told_lost or is_trial:
            head = self._held[0] if self._held else None
            if isinstance(head, _Rekeying):
                self._rekey(head.key)
            else:
                self._write(self._next_batch())
            is_trial = False

    def _next_batch(self) -> list[_Waiting]:
        batch = []
        for each in itertools.islice(self._held, BATCH_MAX):
            if isinstance(each, _Rekeying):
                break
            batch.append(each)
        return batch

    def _rekey(self, key: bytes) -> None:
        self._trail.rekey(key)
        self._held.popleft()
        self._note_unsafe()
        self._trail.sync()
        self._log.info("audit_rekeyed", key=key_id(key), seq=self._trail.head.seq)

    def _write(self, batch: list[_Waiting]) -> None:
        notes = [each.note for each in batch]
        if lost := self._lost - self._told_lost:
            gap = AuditGap(lost=lost, reason=self._trouble or "more events than the disk took")
            notes.insert(0, Note(gap, ACTOR, Outcome.FAILURE, None, time.time_ns()))
        self._trail.append(notes)
        self._disk_since_s = time.monotonic()
        self._told_lost += lost
        for _ in batch:
            self._held.popleft()
        self._note_unsafe()
        if self._trail.has_taken_over and not self._has_told_take_over:
            self._has_told_take_over = True
            self._log.warning(
                "audit_taken_over", problem="the entries before are sealed with another secret",
                remedy="replace a secret while the server runs: docs/secrets.md",
            )  # fmt: skip
        waiters = [each.waiter for each in batch if each.waiter is not None]
        if waiters:
            self._sync(waiters)

    def _note_unsafe(self) -> None:
        if self._unsafe_since_s is None:
            self._unsafe_since_s = time.monotonic()

    def _sync(self, waiters: list[_Waiter]) -> None:
        problem: str | None = "it stands in the file, but may not be on the disk"
        try:
            self._trail.sync()
            problem = None
        finally:
            for waiter in waiters:
                waiter.tell(problem)

    def _make_safe(self) -> None:
        """Sync and anchor when it is due: at once when somebody waited, and nobody does now."""
        if self._is_anchor_due():
            self._trail.sync()
            self._trail.anchor()
            self._unsafe_since_s = None
            if self._witness_at_s is None:
                self._witness_at_s = time.monotonic() + WITNESS_S
            self._look_at_disk()
        self._tell_witness()

    def _is_anchor_due(self) -> bool:
        if self._unsafe_since_s is None:
            return False
        is_due = time.monotonic() >= self._unsafe_since_s + self._sync_s
        is_idle = self._trail.is_synced and not self._waiting
        return is_due or is_idle or self._is_closing or bool(self._trouble)

    def _tell_witness(self) -> None:
        """Tell the store when it is due, and at the end. Trouble with it is logged, no more."""
        if self._witness_at_s is None:
            return
        if time.monotonic() < self._witness_at_s and not self._is_closing:
            return
        problem = self._trail.tell_witness()
        self._witness_at_s = time.monotonic() + WITNESS_S if problem else None
        if problem and not self._witness_trouble:
            self._log.warning(
                "audit_unwitnessed", problem=problem,
                effect="older files put back with their anchor would not be noticed",
            )  # fmt: skip
        self._witness_trouble = problem

    def _look_at_disk(self) -> None:
        free_bytes, size_bytes = self._trail.free_bytes()
        is_low = free_bytes < min(LOW_BYTES, LOW_PART * size_bytes)
        if is_low and not self._is_low:
            self._trail.rotate_soon("disk_low")  # all but the newest file may be taken elsewhere
            self._log.warning(
                "audit_disk_low", folder=str(self._trail.folder), free_bytes=free_bytes,
                remedy="make room, or keep fewer files: [audit] files_max",
            )  # fmt: skip
        self._is_low = is_low

    def _note_trouble(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if not self._trouble:
            self._log.error(
                "audit_failing", folder=str(self._trail.folder), problem=reason,
                effect="deeds that concern security are refused"
                if self._is_closed_on_failure else "deeds pass without a record",
            )  # fmt: skip
        self._trouble = reason
        self._retry_at_s = time.monotonic() + RETRY_S
        self._fail_waiters(reason)

    def _note_health(self) -> None:
        if self._trouble:
            self._log.info("audit_healed", seq=self._trail.head.seq, lost=self._lost)
            self._trouble = ""

    def _fail_waiters(self, problem: str) -> None:
        """Whoever waits for what is held is told no. Their notes go: the deed is not done; or it
        is done, with "open", and the note is held like any other.
        """
        kept = deque[_Waiting | _Rekeying]()
        for each in self._held:
            if isinstance(each, _Waiting) and each.waiter is not None:
                each.waiter.tell(problem)
                each.waiter = None
                if self._is_closed_on_failure:
                    continue
            kept.append(each)
        self._held = kept
