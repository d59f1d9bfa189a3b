"""Steps that are much quicker than a message: some of them make one `Step`. Pure.

After an engine step the worker's code and data come from far memory again: its own 4 µs were
measured as 30 with bee-tiny, whose steps take 450. A reader takes no harm from 2 ms.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from rbee.engine.engine import JobFailed, Sampled
from rbee.engine.requests import Running

TOGETHER_S_MAX: Final = 0.002
STEPS_TOGETHER_MAX: Final = 4

Results = Sequence[Sampled | JobFailed]


def fits_another(steps: int, elapsed_s: float) -> bool:
    """Whether one more step like those ``steps`` ends within `TOGETHER_S_MAX`."""
    return steps < STEPS_TOGETHER_MAX and elapsed_s * (steps + 1) <= TOGETHER_S_MAX * steps


def may_rest(results: Results, running: Mapping[int, Running]) -> bool:
    """Whether nobody waits for what a step brought: no first token, no last word, no new job."""
    if len(results) != len(running):
        return False
    for result in results:
        if isinstance(result, JobFailed) or result.finish is not None:
            return False
        request = running.get(result.job_id)
        if request is None or not request.has_told_prompt:
            return False
    return True


def join(steps: Sequence[Results]) -> Results:
    """What several steps brought, as if it were one: one `Sampled` a job, failures last."""
    if len(steps) == 1:
        return steps[0]
    sampled: dict[int, list[Sampled]] = {}
    failed: list[JobFailed] = []
    for result in chain.from_iterable(steps):
        if isinstance(result, JobFailed):
            failed.append(result)
        else:
            sampled.setdefault(result.job_id, []).append(result)
    return [*map(_join_one, sampled.values()), *failed]


def _join_one(parts: list[Sampled]) -> Sampled:
    if len(parts) == 1:
        return parts[0]
    return Sampled(
        parts[0].job_id,
        tuple(chain.from_iterable(part.token_ids for part in parts)),
        tuple(chain.from_iterable(part.pieces for part in parts)),
        tuple(chain.from_iterable(part.logprobs for part in parts)),
        parts[-1].finish,
    )
