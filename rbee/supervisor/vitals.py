"""What is known of a worker's life, gathered from what it says. Pure: time is an argument.

Rule 1: times are on the supervisor's clock, and say when a message was taken, not what the
        worker's clock showed: a box that was frozen and thawed has hung nobody.
Rule 2: the time for which the supervisor itself did not run is no one's silence: `excuse`
        takes it off.
Rule 3: a gain is a token, the end of an answer, or something that was read of a prompt. Clients
        that give up are none: they hide no livelock from those who wait on.
"""

import math
from collections import deque
from dataclasses import replace
from typing import Final

from rbee.errors import ErrorCode
from rbee.supervisor.liveness import Judgement, LifePhase, Pace, Signs, Verdict
from rbee.wire import Beat, Failed, Loading, Phase, Step

# Memory that grows by so much between two looks shows that loading goes on.
LOAD_BYTES_MIN: Final = 8 * 1024 * 1024

# Shorter prompts say more of a step's overhead than of the speed of reading.
PROMPT_TOKENS_MIN: Final = 64
PROMPTS_KEPT: Final = 16

# A slow step is forgotten slowly: this much of it is left after each beat.
STEP_KEPT: Final = 0.9

# How requests end that the engine has not ended.
GIVEN_UP: Final = frozenset({ErrorCode.CANCELLED, ErrorCode.DEADLINE_EXCEEDED})

BEATS_KEPT: Final = 12  # for a crash report


class Vitals:
    """One worker's. Written by its `Worker` alone."""

    def __init__(self, now_s: float, pace: Pace = Pace()) -> None:  # noqa: B008  # frozen
        self.loading = Loading(Phase.IMPORTING, 0.0)
        self.beats = 0
        self.last_beats: deque[tuple[float, Beat]] = deque(maxlen=BEATS_KEPT)
        self.beat_s = now_s  # when the last one came; before the first: Hello, or the start
        self.judgement = Judgement(Verdict.ALIVE)  # the last one
        self.pace = pace
        self._started_s = now_s  # less the time we were suspended
        self._heard_s = self._step_s = self._token_s = self._read_s = now_s
        self._steps = 0  # that are known of
        self._loaded_bytes = 0
        self._sent_s: dict[int, float] = {}  # requests without a token yet: when each was sent
        self._has_gained = True  # since a client gave up, or ever
        self._given_up_s = math.inf  # the first of those given up since then: when it was sent
        self._speeds: deque[float] = deque(maxlen=PROMPTS_KEPT)

    @property
    def beat(self) -> Beat | None:
        return self.last_beats[-1][1] if self.last_beats else None

    def signs(self, phase: LifePhase, requests: int = 0) -> Signs:
        """What it is to be judged by.

        Args:
          requests: that it has, but for those that were given up.
        """
        beat = self.beat
        prompt_tokens = 0 if beat is None else beat.prompt_tokens
        if phase is LifePhase.LOADING and self.loading.phase is Phase.IMPORTING:
            phase = LifePhase.IMPORTING
        return Signs(
            phase=phase,
            started_s=self._started_s,
            beat_s=self.beat_s,
            heard_s=self._heard_s,
            step_s=self._step_s,
            token_s=self._token_s if requests > len(self._sent_s) else self._waits_since_s(),
            read_s=self._read_s,
            prompt_tokens=prompt_tokens,
            is_reading=prompt_tokens > 0 or (beat is not None and beat.phase is Phase.PREFILL),
            pace=self.pace,
        )

    def asked_to_work(self, now_s: float) -> None:
        """It had nothing to do, and has now."""
        self._step_s = self._token_s = self._read_s = now_s

    def asked_to_end(self, now_s: float) -> None:
        self._step_s = now_s

    def request_sent(self, request_id: int, now_s: float) -> None:
        self._sent_s[request_id] = now_s

    def hear_hello(self, now_s: float) -> None:
        self._heard_s = self._step_s = self.beat_s = now_s

    def hear_loading(self, message: Loading, now_s: float) -> None:
        told, self.loading = self.loading, message
        self._heard_s = now_s
        if message.phase is not told.phase or message.fraction > told.fraction:
            self._loading_advanced(told.phase, now_s)

    def hear_ready(self, now_s: float) -> None:
        self._heard_s = self._step_s = self._token_s = now_s

    def hear_step(self, step: Step, now_s: float) -> None:
        self._heard_s = self._step_s = now_s
        self._steps = max(self._steps, step.step)
        if any(delta.token_ids or delta.text or delta.finish for delta in step.deltas):
            self._token_s = now_s
            self._gain()
        if not self._sent_s:
            return
        for delta in step.deltas:
            sent_s = self._sent_s.pop(delta.request_id, None)
            if sent_s is not None and delta.prompt_tokens >= PROMPT_TOKENS_MIN:
                self._speeds.append(delta.prompt_tokens / max(now_s - sent_s, 1e-6))
                self._note_speed()

    def hear_last_word(self, failed: Failed | None, now_s: float) -> None:
        """A request ended with an error. None: it was cancelled."""
        self._heard_s = self._step_s = now_s
        if failed is None:
            return
        if failed.code in GIVEN_UP:
            self.request_cancelled(failed.request_id, now_s)
        else:
            self._sent_s.pop(failed.request_id, None)

    def request_cancelled(self, request_id: int, now_s: float) -> None:
        sent_s = self._sent_s.pop(request_id, None)
        if sent_s is None:
            return
        if self._has_gained:  # its prompt is read no more: shorter ones may begin only now
            self._has_gained, self._token_s = False, now_s
        else:
            self._given_up_s = min(self._given_up_s, sent_s)

    def hear_beat(self, beat: Beat, now_s: float) -> None:
        told = self.beat
        self.last_beats.append((now_s, beat))
        self.beat_s = self._heard_s = now_s
        self.beats += 1
        if beat.step > self._steps:
            self._step_s = now_s
            self._steps = beat.step
        if told is not None and beat.tokens > told.tokens:  # it may be here before they are
            self._token_s = now_s
            self._gain()
        if beat.step_s > 0:
            slowest_s = max(beat.step_s, STEP_KEPT * (self.pace.step_s or 0.0))
            self.pace = replace(self.pace, step_s=slowest_s)
        if beat.read_tokens > (0 if told is None else told.read_tokens):
            self._read_s = now_s
            self._gain()
            self._note_speed()
        if beat.rss_bytes + beat.vram_bytes >= self._loaded_bytes + LOAD_BYTES_MIN:
            self._loaded_bytes = beat.rss_bytes + beat.vram_bytes
            if beat.phase in (Phase.IMPORTING, Phase.LOADING, Phase.WARMING):
                self._loading_advanced(beat.phase, now_s)

    def excuse(self, late_s: float, now_s: float) -> None:
        """Take off the time for which the supervisor did not run."""
        # What it said meanwhile may have been taken already: nothing comes from the future.
        self._started_s = min(now_s, self._started_s + late_s)
        self.beat_s = min(now_s, self.beat_s + late_s)
        self._heard_s = min(now_s, self._heard_s + late_s)
        self._step_s = min(now_s, self._step_s + late_s)
        self._token_s = min(now_s, self._waits_since_s() + late_s)
        self._read_s = min(now_s, self._read_s + late_s)

    def _gain(self) -> None:
        self._has_gained, self._given_up_s = True, math.inf

    def _waits_since_s(self) -> float:
        """Since when somebody who has no token waits for a gain, or has given that up.

        Who waits may be younger than the last gain: others may have been refused since then.
        """
        first_s = min(self._sent_s.values(), default=math.inf)
        first_s = min(first_s, self._given_up_s)
        return self._token_s if first_s == math.inf else max(self._token_s, first_s)

    def _note_speed(self) -> None:
        """Of reading: that of whole prompts, and that of the engine's steps; the slower one."""
        told = [] if self.beat is None else [self.beat.read_tokens_per_s]
        known = [speed for speed in (*self._speeds, *told) if speed > 0]
        if known:
            self.pace = replace(self.pace, prompt_tokens_per_s=min(known))

    def _loading_advanced(self, phase: Phase, now_s: float) -> None:
        """A sign of loading, the first since ``phase`` held."""
        if phase is not Phase.IMPORTING:
            gap_s = now_s - self._step_s
            if gap_s > (self.pace.load_gap_s or 0.0):
                self.pace = replace(self.pace, load_gap_s=gap_s)
        self._step_s = now_s
