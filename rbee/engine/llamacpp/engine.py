"""The CPU engine: continuous batching over llama.cpp, one decode per step.

Rule 1: a running job is its token ids and a sequence of the cache. What the sequence lacks of
        the ids is pending; a step computes pending tokens, and draws one more for each job
        that has none left. A failed decode only makes tokens pending again.
Rule 2: jobs start in the order they came. One that finds no room waits, and those behind it.
"""

import collections
import math
import time
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Final

from rbee.ask import FinishReason
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
from rbee.engine.grammar import GrammarFactory
from rbee.engine.llamacpp import abi
from rbee.engine.llamacpp.batch import (
    BATCH_TOKENS_MAX,
    Chunk,
    Due,
    PrefillPace,
    plan_batch,
    plan_exact,
)
from rbee.engine.llamacpp.context import AbortFlag, FloatArray
from rbee.engine.llamacpp.model import LoadedModel, load_model
from rbee.engine.llamacpp.sampling import Sampler, token_logprob
from rbee.engine.llamacpp.sequences import Sequence, Sequences
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError
from rbee.wire import Phase

_NAME: Final = "llamacpp"
_FILLER: Final = [0]  # any token: what it computes is thrown away


@dataclass(slots=True)
class _Waiting:
    """A job without a sequence: new, or put back with what it has said already."""

    job: Job
    sampler: Sampler
    token_ids: list[int]  # prompt, and answer so far

    @property
    def prompt_tokens(self) -> int:
        """Without the answer that another worker brought."""
        return len(self.job.prompt_ids) - self.job.resumed


@dataclass(slots=True)
class _Running(_Waiting):
    sequence: Sequence

    @property
    def pending(self) -> int:
        return len(self.token_ids) - len(self.sequence.token_ids)

    @property
    def due(self) -> Due:
        prompt = max(0, self.prompt_tokens - len(self.sequence.token_ids))
        return Due(prompt, self.pending - prompt)

    @property
    def answered(self) -> int:
        return len(self.token_ids) - len(self.job.prompt_ids)


_Part = tuple[_Running, Chunk]
"""What is computed of a job in one pass."""


class LlamaCppEngine:
    """One model on the CPU."""

    def __init__(self) -> None:
        self._abort = AbortFlag()
        self._model: LoadedModel | None = None
        self._tokenizer: Tokenizer | None = None
        self._grammars: GrammarFactory | None = None
        self._sequences: Sequences | None = None
        self._pace = PrefillPace(BATCH_TOKENS_MAX)
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._running: list[_Running] = []
        self._rows: list[int] = []  # of logits, after a decode: the number of each one's sequence

    def load(self, spec: LoadSpec, progress: Progress) -> EngineInfo:
        model = load_model(spec, self._abort, progress)
        self._model, self._tokenizer = model, model.tokenizer
        plan = model.plan
        self._sequences = Sequences(
            model.context, plan.batch_size, model.context.cells, can_share=model.can_share
        )
        features = {Feature.LOGPROBS, Feature.LOGIT_BIAS}
        if model.tokenizer.chat_template is not None:
            features.add(Feature.CHAT)
        if model.tokenizer.end_ids:
            self._grammars = GrammarFactory(model.tokenizer)
            self._grammars.prepare()
            features.add(Feature.JSON_SCHEMA)
        progress(Phase.WARMING, 1.0)
        return EngineInfo(
            engine=_NAME,
            device="cpu",
            context_length=plan.context_length,
            batch_size=plan.batch_size,
            features=frozenset(features),
            detail={
                "model": model.description,
                "threads": str(model.threads),
                "library": f"xllamacpp {abi.XLLAMACPP_VERSION}",
                "cache_tokens": str(model.context.cells * plan.batch_size),
                "cache_bytes": str(plan.cache_bytes),
                "attention": "flash" if plan.with_flash_attention else "plain",
            },
        )

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._tokenizer is not None, "the tokenizer is there after load"
        return self._tokenizer

    def enqueue(self, job: Job) -> None:
        assert self._model is not None, "enqueue comes after load"
        assert all(job.job_id != other.job.job_id for other in self._jobs()), "job ids are unique"
        _check(job, self._model)
        grammar = None
        if job.json_schema is not None:
            if self._grammars is None:
                raise RequestError(
                    ErrorCode.UNSUPPORTED_PARAMETER,
                    "this model has no token that ends an answer, and so no JSON schemas",
                    param="response_format",
                )
            answered = job.prompt_ids[len(job.prompt_ids) - job.resumed :]
            grammar = self._grammars.json_schema(job.json_schema, answered)
        self._waiting.append(_Waiting(job, Sampler(job, grammar), list(job.prompt_ids)))

    def step(self) -> list[Sampled | JobFailed]:
        assert self._model is not None, "step comes after load"
        self._admit()
        if not self._running:
            return []
        results: list[Sampled | JobFailed] = []
        for chunks in self._passes():
            code = self._decode(chunks)
            match code:
                case abi.DECODE_OK:
                    results += self._sample(chunks)
                case abi.DECODE_ABORTED:
                    self._abort.clear()
                    return results
                case abi.DECODE_NO_ROOM:
                    return results + self._yield_room()
                case _:
                    raise EngineError(
                        f"llama_decode gave {code} for a batch of"
                        f" {sum(chunk.count for _, chunk in chunks)} tokens",
                        ExitCode.ENGINE_FATAL,
                    )
        return results

    def _passes(self) -> list[list[_Part]]:
        """What is computed in this step, pass by pass.

        Each pass is in the order of its sequences' numbers: else llama.cpp takes more passes.
        """
        assert self._model is not None
        running = list(self._running)
        if self._model.is_exact:
            plans = plan_exact([each.due for each in running], self._pace.tokens)
        else:
            plans = [plan_batch([each.pending for each in running], self._pace.tokens)]
        passes = [[(running[chunk.index], chunk) for chunk in plan] for plan in plans]
        for each in passes:
            each.sort(key=lambda part: part[0].sequence.number)
        return passes

    @property
    def phase(self) -> Phase:
        if not (self._running or self._waiting):
            return Phase.IDLE
        decodes = all(running.pending == 1 for running in self._running)
        has_slot = len(self._running) < (self._model.plan.batch_size if self._model else 0)
        return Phase.DECODE if decodes and not (self._waiting and has_slot) else Phase.PREFILL

    def cancel(self, job_id: int) -> None:
        self._waiting = collections.deque(w for w in self._waiting if w.job.job_id != job_id)
        for running in self._running:
            if running.job.job_id == job_id:
                self._end(running)
                return

    def abort(self) -> None:
        """Cut the step short that runs now, or the next one, or a load. From any thread.

        No job is lost: that step gives [], and what it would have done is done by the one after.
        """
        self._abort.set()

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()
        self._sequences = self._tokenizer = self._grammars = None
        if self._model is not None:
            model, self._model = self._model, None
            model.close()

    def _jobs(self) -> list[_Waiting]:
        return [*self._waiting, *self._running]

    def _admit(self) -> None:
        """Start waiting jobs, oldest first, while there are sequences."""
        assert self._sequences is not None
        assert self._model is not None
        while self._waiting:
            first = self._waiting[0]
            exact = first.prompt_tokens if self._model.is_exact else None
            sequence = self._sequences.acquire(first.token_ids, exact)
            if sequence is None:
                return
            self._waiting.popleft()
            self._running.append(_Running(first.job, first.sampler, first.token_ids, sequence))

    def _decode(self, chunks: Items[_Part]) -> int:
        """Compute the chunks; the sequences know them afterwards, or nothing has changed."""
        assert self._model is not None
        assert self._sequences is not None
        context = self._model.context
        has_prompts = any(running.due.prompt for running, _ in chunks)
        # What one row alone would be computed differently gets company: in the layers by a filler,
        # in the output layer by the filler's row and all others.
        wants_all = self._model.is_exact and not (self._model.is_row_by_row or has_prompts)
        parts: list[tuple[Sequence, list[int], bool]] = []
        for running, chunk in chunks:
            start = len(running.sequence.token_ids)
            token_ids = running.token_ids[start : start + chunk.count]
            parts.append((running.sequence, token_ids, chunk.is_last or wants_all))
        fillers = self._sequences.fillers
        if self._model.is_exact:
            numbers = [running.sequence.number for running, _ in chunks]
            fillers = [] if has_prompts else self._sequences.beside(numbers, wants_pair=wants_all)
        filled = [*parts, *((filler, _FILLER, wants_all) for filler in fillers)]
        if fillers:
            filled.sort(key=lambda part: part[0].number)
        context.begin()
        for sequence, token_ids, is_wanted in filled:
            start = len(sequence.token_ids)
            context.add(sequence.number, token_ids, start, is_last=is_wanted)
        self._rows = [sequence.number for sequence, _, is_wanted in filled if is_wanted]
        started_s = time.monotonic()
        code = context.decode()
        if code == abi.DECODE_OK:
            size = sum(len(token_ids) for _, token_ids, _ in parts)
            self._pace.note(size, time.monotonic() - started_s)
        for sequence, token_ids, _ in parts:
            if code == abi.DECODE_OK:
                sequence.token_ids += token_ids
            else:
                self._sequences.rewind(sequence)
        for filler in fillers:
            self._sequences.rewind(filler)
        return code

    def _sample(self, chunks: Items[_Part]) -> list[Sampled | JobFailed]:
        assert self._model is not None
        ready = [running for running, chunk in chunks if chunk.is_last]
        if not ready:
            return []
        rows = self._model.context.logits()
        likeliest = _argmax(rows) if all(r.sampler.is_argmax for r in ready) else None
        results: list[Sampled | JobFailed] = []
        for running in ready:
            place = self._rows.index(running.sequence.number)
            row = rows[place]
            try:
                token_id = likeliest[place] if likeliest is not None else None
                result: Sampled | JobFailed = self._advance(running, row, token_id)
            except RequestError as error:
                result = JobFailed(running.job.job_id, error)
            if isinstance(result, JobFailed) or result.finish is not None:
                self._end(running)
            results.append(result)
        return results

    def _advance(self, running: _Running, row: FloatArray, likeliest: int | None) -> Sampled:
        """Draw a job's next token. ``likeliest``: it is known to be this one."""
        assert self._model is not None
        job, sampler, tokenizer = running.job, running.sampler, self._model.tokenizer
        token_id = sampler.choose(row) if likeliest is None else likeliest
        if token_id in tokenizer.end_ids:
            return Sampled(job.job_id, (), (), (), "stop")
        sampler.accept(token_id)
        running.token_ids.append(token_id)
        finish: FinishReason | None = None
        if sampler.is_finished:
            finish = "stop"
        elif running.answered >= job.tokens_max:
            finish = "length"
        top = job.sampling.logprobs
        logprobs = () if top is None else (token_logprob(row, token_id, top, tokenizer),)
        return Sampled(job.job_id, (token_id,), (tokenizer.piece(token_id),), logprobs, finish)

    def _end(self, running: _Running) -> None:
        assert self._sequences is not None
        self._sequences.release(running.sequence)
        self._running = [other for other in self._running if other is not running]

    def _yield_room(self) -> list[Sampled | JobFailed]:
        """The cache has no cells, against our count: take back what is dearest to keep.

        First what is kept for its prefixes, then the youngest job, which goes back to the head
        of the queue with what it has said. A job that is alone and finds no room has failed.
        """
        assert self._sequences is not None
        if self._sequences.forget_kept():
            return []
        youngest = self._running[-1]
        self._end(youngest)
        self._sequences.forget_kept()
        if self._running:
            self._waiting.appendleft(_Waiting(youngest.job, youngest.sampler, youngest.token_ids))
            return []
        error = RequestError(ErrorCode.ENGINE_FAILED, "the engine's cache has no room for this")
        return [JobFailed(youngest.job.job_id, error)]


def _argmax(rows: FloatArray) -> list[int] | None:
    """The likeliest token of each row; None if a row holds what is no number."""
    ids: list[int] = rows.argmax(axis=1).tolist()
    # Not a number is the highest of its row, and above nothing.
    is_sound = all(rows.item(place, token_id) > -math.inf for place, token_id in enumerate(ids))
    return ids if is_sound else None


def _check(job: Job, model: LoadedModel) -> None:
    """Hold a job against the model. llama.cpp would fail the whole batch for one bad id."""
    size, context_length = model.tokenizer.vocabulary_size, model.plan.context_length
    tokens = len(job.prompt_ids) + job.tokens_max
    if not job.prompt_ids or tokens > context_length:
        raise RequestError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"prompt and answer must have 1 to {context_length} tokens, are {tokens}",
        )
    for param, ids in (("prompt", job.prompt_ids), ("logit_bias", tuple(job.sampling.logit_bias))):
        if ids and not 0 <= min(ids) <= max(ids) < size:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"{param} holds token ids that the model does not have: it has {size}",
                param=param,
            )
