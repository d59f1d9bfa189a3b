"""What is known of a worker's life, gathered from what it says. Pure: time is an argument.

Rule: times are on the supervisor's clock, and say when a message was taken. The time for which
the supervisor was itself suspended is no one's silence: `excuse` takes it off.
"""

from rbee.supervisor.liveness import LifePhase, Signs
from rbee.wire import Beat, Loading, Phase


class Vitals:
    """One worker's. Written by its `Worker` alone."""

    def __init__(self, now_s: float) -> None:
        self.loading = Loading(Phase.IMPORTING, 0.0)
        self.beat: Beat | None = None  # the last one
        self.beats = 0
        self.beat_s = now_s  # when it came; before the first: Hello, or the start
        self._judged_from_s = now_s  # the start, less the time we were suspended
        self._progress_s = now_s

    def signs(self, phase: LifePhase) -> Signs:
        return Signs(phase, self._judged_from_s, self.beat_s, self._progress_s)

    def advanced(self, now_s: float) -> None:
        """It got work, was asked to end, or has brought something."""
        self._progress_s = now_s

    def hear_hello(self, now_s: float) -> None:
        self._progress_s = self.beat_s = now_s

    def hear_loading(self, message: Loading, now_s: float) -> None:
        told = self.loading
        if message.phase is not told.phase or message.fraction > told.fraction:
            self._progress_s = now_s
        self.loading = message

    def hear_beat(self, beat: Beat, now_s: float) -> None:
        told = self.beat
        self.beat, self.beat_s = beat, now_s
        self.beats += 1
        # A long prompt is read in many steps that bring no token, and a worker that drains may
        # do so too. Steps that were to bring tokens and did not are no progress.
        may_be_prefill = beat.phase in (Phase.PREFILL, Phase.DRAINING)
        if may_be_prefill and told is not None and beat.step > told.step:
            self._progress_s = now_s

    def excuse(self, late_s: float, now_s: float) -> None:
        """Take off the time for which the supervisor did not run."""
        # What it said meanwhile may have been taken already: nothing comes from the future.
        self._judged_from_s = min(now_s, self._judged_from_s + late_s)
        self.beat_s = min(now_s, self.beat_s + late_s)
        self._progress_s = min(now_s, self._progress_s + late_s)
