"""From what streams received to the figures of a round. Pure.

Delay: a stream's own pace grid is anchored at its earliest token, the one that came soonest
against the pace: token i is due at anchor + i / pace, and its delay is how much later it came.
So no clock of a server is needed, and the same definition holds for every server. Sustained
lateness counts in full, as do pauses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transcript import Transcript
from usage import CpuTimes


@dataclass(frozen=True, slots=True)
class Round:
    """One server, one round."""

    offered_per_s: float
    delivered_per_s: float  # in the window in which all streams run
    first_p50_ms: float  # from the begin of the connect to the first token
    first_p99_ms: float
    delay_p50_ms: float
    delay_p99_ms: float
    lost: int
    duplicated: int
    errors: int
    supervisor_us: float  # CPU per token
    workers_us: float
    client_us: float
    client_share: float  # of one core
    others_share: float  # of one core: what else the machine did
    supervisor_mib: float
    workers_mib: float
    token_bytes: float  # of the body
    faults: tuple[str, ...]  # a few of the streams' faults

    @property
    def delivered_part(self) -> float:
        return self.delivered_per_s / self.offered_per_s


@dataclass(frozen=True, slots=True)
class Window:
    """When all streams ran, and what that took."""

    begin_s: float
    end_s: float
    cpu: CpuTimes
    supervisor_bytes: int
    workers_bytes: int


def make_round(transcripts: Sequence[Transcript], window: Window, tokens_per_s: float) -> Round:
    firsts = [each.tokens_s[0] - each.begun_s for each in transcripts if each.tokens_s]
    delays: list[float] = []
    delivered = 0
    for each in transcripts:
        late = _delays(each, tokens_per_s, window.begin_s, window.end_s)
        delivered += len(late)
        delays += late
    faults = [each.fault for each in transcripts if each.fault]
    window_s = window.end_s - window.begin_s
    cpu, per_token = window.cpu, 1e6 / max(delivered, 1)
    tokens = sum(len(each.tokens_s) for each in transcripts)
    return Round(
        offered_per_s=len(transcripts) * tokens_per_s,
        delivered_per_s=delivered / window_s,
        first_p50_ms=1000 * percentile(firsts, 50),
        first_p99_ms=1000 * percentile(firsts, 99),
        delay_p50_ms=1000 * percentile(delays, 50),
        delay_p99_ms=1000 * percentile(delays, 99),
        lost=sum(each.lost for each in transcripts),
        duplicated=sum(each.duplicated for each in transcripts),
        errors=len(faults),
        supervisor_us=cpu.supervisor_s * per_token,
        workers_us=cpu.workers_s * per_token,
        client_us=cpu.client_s * per_token,
        client_share=cpu.client_s / cpu.wall_s,
        others_share=cpu.others_s / cpu.wall_s,
        supervisor_mib=window.supervisor_bytes / 2**20,
        workers_mib=window.workers_bytes / 2**20,
        token_bytes=sum(each.body_bytes for each in transcripts) / max(tokens, 1),
        faults=tuple(sorted(set(faults))[:4]),
    )


def _delays(
    transcript: Transcript, tokens_per_s: float, begin_s: float, end_s: float
) -> list[float]:
    """The delays of the tokens that came in the window, in seconds."""
    against_pace = [came_s - i / tokens_per_s for i, came_s in enumerate(transcript.tokens_s)]
    if not against_pace:
        return []
    anchor_s = min(against_pace)
    return [
        relative_s - anchor_s
        for relative_s, came_s in zip(against_pace, transcript.tokens_s, strict=True)
        if begin_s <= came_s < end_s
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not below ``percent`` of them; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
