"""The worker's second thread: it owns the link, beats, and watches the life pipe.

The main thread may stand in an engine step for seconds; this one goes on. So beats say that
the process lives and can run Python, and what they carry says whether the engine advances.

Rule 1: it touches no engine and no dialogue: it moves frames, and reads `published`.
Rule 2: the end of the life pipe is the end of the supervisor: the process exits at once.
Rule 3: a Stop that the main thread does not obey in `STOP_GRACE_S` ends the process.
Rule 4: what libzmq has queued is lost with the process. So the link is held after the last word
        until a Stop has come: the supervisor's answer to Bye.
"""

import contextlib
import faulthandler
import os
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rbee.engine.own_memory import OwnMemory
from rbee.engine.step_times import ReadingPace, StepTimes
from rbee.errors import ExitCode
from rbee.transport.thread_link import ThreadLink
from rbee.wire import STACKS_SIGNAL, Beat, Phase, Stop, encode

# Steps that the main thread may be ahead of the link.
OUTBOX_MESSAGES_MAX: Final = 16

# After a send the thread looks again this soon by itself. Waking it costs the engine's thread
# more than its own timer does (about 40 µs on a virtual machine, a tenth of a small model's
# step), so that steps quicker than this leave together, each a message of its own.
LOOK_AGAIN_S: Final = 0.004
WAKE_AT_MESSAGES: Final = OUTBOX_MESSAGES_MAX * 3 // 4  # bee-tiny makes 9 steps in that time

# How long the main thread may take to see a Stop; then the process ends without it.
STOP_GRACE_S: Final = 1.0

# How long the link is held after the last word for the supervisor to say that it has heard it.
HEARD_S_MAX: Final = 2.0

STOP_FRAMES: Final = encode(Stop())

STDERR: Final = 2


@dataclass(frozen=True, slots=True)
class Published:
    """What the main thread last said of itself. Replaced whole, so read without a lock."""

    phase: Phase = Phase.IMPORTING
    step: int = 0
    tokens: int = 0
    requests: dict[int, int] = field(default_factory=dict)  # open request -> tokens delivered
    oldest_request_s: float | None = None  # on the monotonic clock
    vram_bytes: int = 0
    prompt_tokens: int = 0  # of the open requests that have no token yet
    read_tokens: int = 0  # in all


class LinkThread:
    """The link, as the main thread sees it: an inbox, an outbox and a word on progress."""

    def __init__(self, path: Path, life_fd: int) -> None:
        self.published = Published()
        self.step_times: Final = StepTimes()
        self.reading: Final = ReadingPace()
        self.ignores_stop = False  # for the synthetic engine's fault of that name
        self._memory = OwnMemory()
        self._path = path
        self._life_fd = life_fd
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._changed = threading.Condition()
        self._inbox: deque[list[bytes]] = deque()
        self._outbox: deque[list[bytes]] = deque()
        self._looks_again = False  # within `LOOK_AGAIN_S`, without being woken
        self._is_closing = False
        self._beat_s: float | None = None
        self._stop_by_s: float | None = None
        self._hold_until_s: float | None = None  # once all is sent
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def start(self) -> None:
        """Begin. From here on the supervisor may also ask for the stacks of our threads."""
        faulthandler.register(STACKS_SIGNAL, file=STDERR, all_threads=True)
        self._thread.start()

    def start_beating(self, beat_s: float) -> None:
        """Beat every ``beat_s`` from now on."""
        self._beat_s = beat_s
        self._wake()

    def send(self, frames: list[bytes], *, may_rest: bool = False) -> None:
        """Queue one message. Waits while the supervisor is `OUTBOX_MESSAGES_MAX` behind.

        Args:
          may_rest: it may stay here for `LOOK_AGAIN_S`.
        """
        with self._changed:
            while len(self._outbox) >= OUTBOX_MESSAGES_MAX and not self._is_closing:
                self._changed.wait()
            self._outbox.append(frames)
            rests = may_rest and self._looks_again and len(self._outbox) < WAKE_AT_MESSAGES
        if not rests:
            self._wake()

    def take(self, timeout_s: float | None) -> list[list[bytes]]:
        """What has come in since; waits up to ``timeout_s`` for the first (None: for ever)."""
        if timeout_s == 0 and not self._inbox:  # nearly always, between two steps: no lock
            return []
        with self._changed:
            if not self._inbox:
                self._changed.wait_for(lambda: bool(self._inbox), timeout_s)
            taken = list(self._inbox)
            self._inbox.clear()
            return taken

    @property
    def has_received(self) -> bool:
        """Whether something has come in that was not taken yet."""
        return bool(self._inbox)

    @property
    def stop_asked(self) -> bool:
        """Whether a Stop has come in, also one that was not taken yet."""
        return self._stop_by_s is not None

    def close(self) -> None:
        """Send what is queued, have it heard, close the link and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._wake()
        self._thread.join(timeout=HEARD_S_MAX + STOP_GRACE_S)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        try:
            self._move_frames()
        except BaseException:  # noqa: BLE001
            # Without this thread the process is deaf and dumb: its main thread may wait for ever.
            traceback.print_exc()
            os._exit(ExitCode.SOFTWARE)

    def _move_frames(self) -> None:
        link = ThreadLink(self._path)
        link.watch([self._wake_fd, self._life_fd])
        next_beat_s = time.monotonic()
        wants_to_send = False
        while True:
            readable = link.wait(self._wait_s(next_beat_s), wants_to_send=wants_to_send)
            if self._life_fd in readable:  # nobody ever writes to it: this is its end
                os._exit(ExitCode.ORPHANED)
            if self._wake_fd in readable:
                os.eventfd_read(self._wake_fd)
            self._receive_all(link)
            now_s = time.monotonic()
            if self._beat_s is not None and now_s >= next_beat_s:
                link.send_nowait(encode(self._beat(now_s)))  # no room: the next one will tell
                next_beat_s = now_s + self._beat_s
            is_closing = self._is_closing  # before sending: what was queued until then is sent
            wants_to_send = not self._send_all(link)
            if self._stop_by_s is not None and now_s >= self._stop_by_s and not self.ignores_stop:
                os._exit(ExitCode.OK)
            if is_closing and not wants_to_send:
                if self._hold_until_s is None:
                    self._hold_until_s = now_s + HEARD_S_MAX
                if self.stop_asked or now_s >= self._hold_until_s:
                    link.close()
                    return

    def _wait_s(self, next_beat_s: float) -> float:
        if self._looks_again:
            return LOOK_AGAIN_S
        waits = [3600.0]
        if self._beat_s is not None:
            waits.append(next_beat_s - time.monotonic())
        if self._stop_by_s is not None and not self.ignores_stop:
            waits.append(self._stop_by_s - time.monotonic())
        if self._hold_until_s is not None:
            waits.append(self._hold_until_s - time.monotonic())
        # Up, not down: poll counts in milliseconds and must not spin through the last one.
        return max(0.0, min(waits)) + 0.001

    def _receive_all(self, link: ThreadLink) -> None:
        while (frames := link.receive_nowait()) is not None:
            if frames == STOP_FRAMES:
                if self.ignores_stop and not self._is_closing:
                    continue
                self._stop_by_s = time.monotonic() + STOP_GRACE_S
            with self._changed:
                self._inbox.append(frames)
                self._changed.notify_all()

    def _send_all(self, link: ThreadLink) -> bool:
        """Send what is queued. False: there was no room for all of it."""
        has_sent = False
        while True:
            with self._changed:
                if not self._outbox:
                    # Under the lock: what is queued from here on either finds this set, or wakes.
                    self._looks_again = has_sent
                    return True
                frames = self._outbox[0]
            if not link.send_nowait(frames):
                self._looks_again = False
                return False
            has_sent = True
            with self._changed:
                self._outbox.popleft()
                self._changed.notify_all()

    def _beat(self, now_s: float) -> Beat:
        told = self.published
        oldest_s = told.oldest_request_s
        return Beat(
            phase=told.phase,
            step=told.step,
            tokens=told.tokens,
            requests=told.requests,
            oldest_request_age_s=0.0 if oldest_s is None else now_s - oldest_s,
            rss_bytes=self._memory.rss_bytes(),
            vram_bytes=told.vram_bytes,
            prompt_tokens=told.prompt_tokens,
            step_s=self.step_times.slow_s(),
            read_tokens=told.read_tokens,
            read_tokens_per_s=self.reading.tokens_per_s(),
        )
