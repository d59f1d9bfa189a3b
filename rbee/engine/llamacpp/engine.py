"""The CPU engine: continuous batching over llama.cpp, one decode per step.

Rule 1: a step computes pending tokens, and draws one more for each job that has none left. A
        failed decode only makes tokens pending again.
Rule 2: jobs start in the order they came. One that finds no room waits, and those behind it.
"""

import collections
import math
import time
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
from rbee.engine.llamacpp.batch import BATCH_TOKENS_MAX, PrefillPace, plan_batch, plan_exact
from rbee.engine.llamacpp.context import AbortFlag, FloatArray
from rbee.engine.llamacpp.jobs import Pass, Running, Waiting, make_pass
from rbee.engine.llamacpp.model import LoadedModel, load_model
from rbee.engine.llamacpp.sampling import Sampler, token_logprob
from rbee.engine.llamacpp.sequences import Sequences
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError
from rbee.wire import Phase

_NAME: Final = "llamacpp"
_FILLER: Final = [0]  # any token: what it computes is thrown away


class LlamaCppEngine:
    """One model on the CPU."""

    def __init__(self) -> None:
        self._abort = AbortFlag()
        self._model: LoadedModel | None = None
        self._tokenizer: Tokenizer | None = None
        self._grammars: GrammarFactory | None = None
        self._sequences: Sequences | None = None
        self._pace = PrefillPace(BATCH_TOKENS_MAX)
        self._waiting: collections.deque[Waiting] = collections.deque()
        self._running: list[Running] = []
        self._again: list[Pass] = []  # the last step's pass, if the next step's is the same
        self._read_tokens = 0

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
            grammar = self._grammars.json_schema(job.json_schema, answered, job.cache_salt)
        self._waiting.append(Waiting(job, Sampler(job, grammar), list(job.prompt_ids)))

    def step(self) -> list[Sampled | JobFailed]:
        assert self._model is not None, "step comes after load"
        self._admit()
        if not self._running:
            return []
        results: list[Sampled | JobFailed] = []
        for each in self._again or self._plan():
            code = self._decode(each)
            if code == abi.DECODE_OK:
                results += self._sample(each)
                continue
            self._again = []
            match code:
                case abi.DECODE_ABORTED:
                    self._abort.clear()
                    return results
                case abi.DECODE_NO_ROOM:
                    return results + self._yield_room()
                case _:
                    raise EngineError(
                        f"llama_decode gave {code} for a batch of {each.tokens} tokens",
                        ExitCode.ENGINE_FATAL,
                    )
        return results

    def _plan(self) -> list[Pass]:
        """What is computed in this step, pass by pass."""
        assert self._model is not None
        assert self._sequences is not None
        running = list(self._running)
        if self._model.is_exact:
            plans = plan_exact([each.due for each in running], self._pace.tokens)
        else:
            plans = [plan_batch([each.pending for each in running], self._pace.tokens)]
        passes: list[Pass] = []
        for plan in plans:
            chosen = [(running[chunk.index], chunk) for chunk in plan]
            is_reading = any(chunk.count > 1 for chunk in plan)
            fillers, needs_company = self._sequences.fillers, False
            if self._model.is_exact:
                is_reading = any(each.due.prompt for each, _ in chosen)
                # What is computed otherwise when it is a row alone gets company: in the layers a
                # filler, in the output layer the rows of all.
                needs_company = not (self._model.is_row_by_row or is_reading)
                numbers = [each.sequence.number for each, _ in chosen]
                beside = self._sequences.beside(numbers, wants_pair=needs_company)
                fillers = [] if is_reading else beside
            passes.append(
                make_pass(chosen, fillers, is_reading=is_reading, wants_all_logits=needs_company)
            )
        is_steady = passes[0].decodes_only and passes[0].jobs == len(running)
        self._again = passes if is_steady else []
        return passes

    @property
    def phase(self) -> Phase:
        if not (self._running or self._waiting):
            return Phase.IDLE
        decodes = bool(self._again) or all(running.pending == 1 for running in self._running)
        has_slot = len(self._running) < (self._model.plan.batch_size if self._model else 0)
        return Phase.DECODE if decodes and not (self._waiting and has_slot) else Phase.PREFILL

    @property
    def read_tokens(self) -> int:
        return self._read_tokens

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
        self._again = []
        self._sequences = self._tokenizer = self._grammars = None
        if self._model is not None:
            model, self._model = self._model, None
            model.close()

    def _jobs(self) -> list[Waiting]:
        return [*self._waiting, *self._running]

    def _admit(self) -> None:
        """Start waiting jobs, oldest first, while there are sequences."""
        assert self._sequences is not None
        assert self._model is not None
        while self._waiting:
            first = self._waiting[0]
            exact = first.prompt_tokens if self._model.is_exact else None
            sequence = self._sequences.acquire(first.token_ids, exact, first.job.cache_salt)
            if sequence is None:
                return
            self._waiting.popleft()
            self._again = []
            self._running.append(Running(first.job, first.sampler, first.token_ids, sequence))

    def _decode(self, each: Pass) -> int:
        """Compute a pass; the sequences know its tokens afterwards, or nothing has changed."""
        assert self._model is not None
        assert self._sequences is not None
        context = self._model.context
        context.begin()
        for part in each.parts:
            sequence, start = part.sequence, len(part.sequence.token_ids)
            ids = part.running.token_ids[start : start + part.count] if part.running else _FILLER
            context.add(sequence.number, ids, start, is_last=part.wants_logits)
        started_s = time.monotonic()
        code = context.decode()
        if code == abi.DECODE_OK:
            self._read_tokens += each.read_tokens
            if each.is_reading:
                self._pace.note(each.tokens, time.monotonic() - started_s)
        for part in each.parts:
            sequence, start = part.sequence, len(part.sequence.token_ids)
            if part.running and code == abi.DECODE_OK:
                sequence.token_ids += part.running.token_ids[start : start + part.count]
            else:
                self._sequences.rewind(sequence)
        return code

    def _sample(self, each: Pass) -> list[Sampled | JobFailed]:
        assert self._model is not None
        wanted = [part for part in each.parts if part.wants_logits]
        if not wanted:
            return []
        rows = self._model.context.logits()
        likeliest = _argmax(rows) if each.takes_likeliest else None
        results: list[Sampled | JobFailed] = []
        for place, part in enumerate(wanted):
            if part.running is None or not part.draws:
                continue
            try:
                token_id = likeliest[place] if likeliest is not None else None
                result: Sampled | JobFailed = self._advance(part.running, rows[place], token_id)
            except RequestError as error:
                result = JobFailed(part.running.job.job_id, error)
            if isinstance(result, JobFailed) or result.finish is not None:
                self._end(part.running)
            results.append(result)
        return results

    def _advance(self, running: Running, row: FloatArray, likeliest: int | None) -> Sampled:
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

    def _end(self, running: Running) -> None:
        assert self._sequences is not None
        self._sequences.release(running.sequence)
        self._again = []
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
            self._waiting.appendleft(Waiting(youngest.job, youngest.sampler, youngest.token_ids))
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
