"""The synthetic engine: no model, a steady pace, and faults on request.

Rule 1: an answer counts "0 1 2 3 ..."; a resumed one goes on where it was. It ends with "length",
        or with "stop" after N tokens in all if the prompt holds ``[tokens=N]``. Sampling has no
        effect on it, as there is nothing to draw; what it cannot do at all it refuses.
Rule 2: a step is the end of prefills, and gives their jobs the first token at once, as the
        prefill of a model does; or one tick, at which all jobs that decode get one token, never
        two. After a delay the next ticks come sooner, until the pace is kept on average again;
        of a delay over `CATCH_UP_S` the rest is forgotten.
Rule 3: what is done per token is next to nothing: load tests run thousands of streams on it.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from rbee.ask import TokenLogprob
from rbee.engine.engine import (
    EngineInfo,
    Feature,
    Job,
    JobFailed,
    LoadSpec,
    Progress,
    Sampled,
    Tokenizer,
)
from rbee.engine.synthetic_faults import Faults, LinkFault
from rbee.engine.synthetic_tokens import FIRST_NUMBER_ID, SyntheticTokenizer, tokens_asked
from rbee.errors import ErrorCode, RequestError
from rbee.wire import Phase

BATCH_SIZE: Final = 1024  # where the configuration names none

# A step waits no longer than this for its tick: a cancel or a Stop comes in between.
STEP_WAIT_S_MAX: Final = 0.05

# A box that is busy for a moment must not lower the pace that a load test asked for; a process
# that was stopped for minutes must not flood its clients afterwards.
CATCH_UP_S: Final = 1.0

# Tokens that are made ahead, 0.2 kB each. Answers that are longer are made as they go.
_TABLE_TOKENS: Final = 1 << 16

_LOGPROB: Final = -0.1  # of each chosen token; with those of `_top` the sum stays below 1


@dataclass(slots=True)
class _Running:
    """A job in the batch."""

    job_id: int
    number: int  # of its next token
    plain_until: int  # before that number a token is only a look into the table
    length_at: int  # "length" comes with the token before this number
    stop_at: int | None  # "stop" comes instead of this number
    logprobs: int | None
    ready_s: float = 0.0  # when its prefill is over


class SyntheticEngine:
    """Implements `rbee.engine.engine.Engine`.

    Args:
      clock: what time it is, in seconds.
      sleep: waits that long.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._tokenizer = SyntheticTokenizer()
        self._faults: Faults | None = None  # None: not loaded
        self._queued: OrderedDict[int, Job] = OrderedDict()
        self._prefilling: OrderedDict[int, _Running] = OrderedDict()
        self._decoding: dict[int, _Running] = {}
        self._tick_s = 0.0  # when the next tick is due
        self._read_tokens = 0

    def load(self, spec: LoadSpec, progress: Progress) -> EngineInfo:
        model, config = spec.model, spec.model.synthetic
        faults = Faults(config, self._sleep)
        progress(Phase.LOADING, 0.0)
        faults.begin_load()
        self._pass_time(config.load_s / 2, 0.0, progress)
        faults.be_half_loaded()
        self._pass_time(config.load_s / 2, 0.5, progress)
        context_length = model.context_length or config.context_length
        self._batch_size = model.batch_size or BATCH_SIZE
        self._period_s = 1 / config.tokens_per_s
        self._first_token_s = config.first_token_s
        # One-tuples, as `Sampled` wants them.
        self._table_ids = [
            (FIRST_NUMBER_ID + i,) for i in range(min(context_length, _TABLE_TOKENS))
        ]
        self._table_pieces = [(self._tokenizer.piece(i),) for (i,) in self._table_ids]
        self._faults = faults
        progress(Phase.LOADING, 1.0)
        return EngineInfo(
            engine="synthetic",
            device="none",
            context_length=context_length,
            batch_size=self._batch_size,
            features=frozenset((Feature.LOGPROBS, Feature.CHAT)),
            detail={
                "tokens_per_s": f"{config.tokens_per_s:g}",
                "first_token_s": f"{config.first_token_s:g}",
                "fault": config.fault or "none",
            },
        )

    def _pass_time(self, duration_s: float, fraction: float, progress: Progress) -> None:
        """Half of a load that takes a while, beginning at ``fraction``."""
        began_s = self._clock()
        while (left_s := began_s + duration_s - self._clock()) > 0:
            self._sleep(min(left_s, STEP_WAIT_S_MAX))
            done = min(1.0, (self._clock() - began_s) / duration_s)
            progress(Phase.LOADING, fraction + done / 2)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def link_fault(self) -> LinkFault | None:
        """What the worker loop is to do to the link after each step."""
        return self._faults.link_fault if self._faults is not None else None

    @property
    def phase(self) -> Phase:
        if self._decoding:
            return Phase.DECODE
        return Phase.PREFILL if self._prefilling or self._queued else Phase.IDLE

    def enqueue(self, job: Job) -> None:
        assert self._faults is not None, "a job came before the load"
        if job.json_schema is not None:
            raise _unsupported("response_format")
        if job.sampling.logit_bias:
            raise _unsupported("logit_bias")
        if min(job.prompt_ids) < 0 or max(job.prompt_ids) >= self._tokenizer.vocabulary_size:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"prompt holds token ids outside 0..{self._tokenizer.vocabulary_size - 1}",
                param="prompt",
            )
        self._queued[job.job_id] = job

    def step(self) -> list[Sampled | JobFailed]:
        assert self._faults is not None, "a step came before the load"
        self._fill_batch(self._faults)
        if not self._prefilling and not self._decoding:
            return []
        may_deliver = self._faults.begin_step()
        read = len(self._prefilling)  # one of each prompt, and the rest at its end
        jobs = self._end_prefills() or self._wait_tick()
        if jobs:
            self._faults.end_step()
        if not may_deliver:
            return []
        self._read_tokens += read
        return self._sample_each(jobs)

    @property
    def read_tokens(self) -> int:
        return self._read_tokens

    def cancel(self, job_id: int) -> None:
        self._queued.pop(job_id, None)
        self._prefilling.pop(job_id, None)
        self._decoding.pop(job_id, None)

    def close(self) -> None:
        self._queued.clear()
        self._prefilling.clear()
        self._decoding.clear()
        self._faults = None

    def _fill_batch(self, faults: Faults) -> None:
        while self._queued and len(self._prefilling) + len(self._decoding) < self._batch_size:
            job_id, job = self._queued.popitem(last=False)
            prompt = self._tokenizer.text(job.prompt_ids[: len(job.prompt_ids) - job.resumed])
            faults.see_prompt(prompt)
            running = _running(job, tokens_asked(prompt), len(self._table_ids))
            running.ready_s = self._clock() + self._first_token_s
            self._prefilling[job_id] = running

    def _end_prefills(self) -> tuple[_Running, ...]:
        """The jobs whose prefill is over. The first to decode sets the grid of the ticks."""
        now_s = self._clock()
        ended: list[_Running] = []
        for running in self._prefilling.values():
            if running.ready_s > now_s:  # all wait equally long: those behind it are not ready
                break
            ended.append(running)
        if ended and not self._decoding:
            self._tick_s = max(self._tick_s, ended[0].ready_s + self._period_s)
        for running in ended:
            del self._prefilling[running.job_id]
            self._decoding[running.job_id] = running
        return tuple(ended)

    def _wait_tick(self) -> tuple[_Running, ...]:
        """Wait for the next tick or end of a prefill, but not for long.

        Returns:
          The jobs that decode, if the tick is due; none if it is still to come.
        """
        due_s = self._tick_s if self._decoding else math.inf
        if self._prefilling:
            due_s = min(due_s, next(iter(self._prefilling.values())).ready_s)
        wait_s = due_s - self._clock()
        if wait_s > 0:
            self._sleep(min(wait_s, STEP_WAIT_S_MAX))
        now_s = self._clock()
        if not self._decoding or now_s < self._tick_s:
            return ()
        self._tick_s = max(self._tick_s + self._period_s, now_s - CATCH_UP_S)
        return tuple(self._decoding.values())

    def _sample_each(self, jobs: Iterable[_Running]) -> list[Sampled | JobFailed]:
        """One token for each job. The hot path: see Rule 3."""
        brought: list[Sampled | JobFailed] = []
        append, ids, pieces = brought.append, self._table_ids, self._table_pieces
        for running in jobs:
            number = running.number
            if number < running.plain_until:
                append(Sampled(running.job_id, ids[number], pieces[number]))
            else:
                append(self._sample(running))
            running.number = number + 1
        return brought

    def _sample(self, running: _Running) -> Sampled:
        """A token that is more than a look into the table: the last one, or with logprobs."""
        job_id, number = running.job_id, running.number
        if number == running.stop_at:
            del self._decoding[job_id]
            return Sampled(job_id, (), (), finish="stop")
        finish: Literal["length"] | None = None
        if number + 1 == running.length_at:
            del self._decoding[job_id]
            finish = "length"
        token_id = FIRST_NUMBER_ID + number
        piece = self._tokenizer.piece(token_id)
        if running.logprobs is None:
            return Sampled(job_id, (token_id,), (piece,), finish=finish)
        logprob = TokenLogprob(token_id, piece, _LOGPROB, self._top(number, running.logprobs))
        return Sampled(job_id, (token_id,), (piece,), (logprob,), finish)

    def _top(self, number: int, count: int) -> tuple[tuple[int, bytes, float], ...]:
        """The likeliest tokens: the chosen one, then the numbers that follow it."""
        ids = range(FIRST_NUMBER_ID + number, FIRST_NUMBER_ID + number + count)
        logprobs = (_LOGPROB, *(-2.0 - place for place in range(1, count)))
        return tuple((i, self._tokenizer.piece(i), p) for i, p in zip(ids, logprobs, strict=False))


def _running(job: Job, tokens_asked: int | None, table_tokens: int) -> _Running:
    length_at = job.resumed + job.tokens_max
    # A worker that is gone may have delivered all that was asked for, but for the "stop".
    stop_at = None if tokens_asked is None else max(tokens_asked, job.resumed)
    ends_at = length_at - 1 if stop_at is None else min(length_at - 1, stop_at)
    return _Running(
        job_id=job.job_id,
        number=job.resumed,
        plain_until=0 if job.sampling.logprobs is not None else min(ends_at, table_tokens),
        length_at=length_at,
        stop_at=stop_at,
        logprobs=job.sampling.logprobs,
    )


def _unsupported(param: str) -> RequestError:
    message = f"the synthetic engine has no model and cannot do {param}"
    return RequestError(ErrorCode.UNSUPPORTED_PARAMETER, message, param=param)
