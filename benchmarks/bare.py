"""The CPU engine's library without worker, link and HTTP: two loops in this process.

`library_burst` calls the C interface alone, the loop that anybody would write first: a batch
with one token of each stream, `llama_decode`, the likeliest token of each row. `engine_burst`
does the same through rbee's engine: what the difference costs is the engine's.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rbee.ask import Ask, Message, Sampling
from rbee.config import ModelConfig
from rbee.engine.engine import EngineInfo, Feature, JobFailed, LoadSpec
from rbee.engine.llamacpp import abi
from rbee.engine.llamacpp.batch import BATCH_TOKENS_MAX
from rbee.engine.llamacpp.context import AbortFlag
from rbee.engine.llamacpp.engine import LlamaCppEngine
from rbee.engine.llamacpp.model import LoadedModel, load_model
from rbee.engine.requests import Admission
from rbee.wire import Generate, Phase

MODEL_NAME = "measured"


@dataclass(frozen=True, slots=True)
class Burst:
    """What a number of streams, begun together, have brought."""

    tokens: int
    elapsed_s: float
    engine_cpu_s: float  # of the process that computes
    supervisor_cpu_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.elapsed_s


class Bare:
    """The same model, loaded twice in this process: for the library, and for the engine."""

    def __init__(self, path: Path, batch_size: int) -> None:
        config = ModelConfig(ref=f"file:{path}", name=MODEL_NAME, batch_size=batch_size)
        spec = LoadSpec(config, path, os.cpu_count() or 1)
        self._abort = AbortFlag()  # the context reads it: it must live as long
        self._library: LoadedModel = load_model(spec, self._abort, _ignore)
        self._engine = LlamaCppEngine()
        self.info: EngineInfo = self._engine.load(spec, _ignore)
        self._admission = Admission(self.info, self._engine.tokenizer)
        self._next_id = 1

    @property
    def has_chat(self) -> bool:
        return Feature.CHAT in self.info.features

    def ask(self, text: str, tokens_max: int) -> Ask:
        """A greedy request."""
        sampling = Sampling(temperature=0.0)
        if self.has_chat:
            messages = (Message(role="user", content=text),)
            return Ask(
                model=MODEL_NAME, messages=messages, tokens_max=tokens_max, sampling=sampling
            )
        return Ask(model=MODEL_NAME, prompt=text, tokens_max=tokens_max, sampling=sampling)

    def library_burst(self, asks: Sequence[Ask]) -> Burst:
        jobs = [self._admission.job(self._message(ask)) for ask in asks]
        context, end_ids = self._library.context, self._library.tokenizer.end_ids
        pending = {number: list(job.prompt_ids) for number, job in enumerate(jobs)}
        at, counts = [0] * len(jobs), [0] * len(jobs)
        begun_s, cpu_s = time.monotonic(), time.process_time()
        while pending:
            chosen = _fitting(pending)
            context.begin()
            for number in chosen:
                context.add(number, pending[number], at[number], is_last=True)
                at[number] += len(pending[number])
            code = context.decode()
            assert code == abi.DECODE_OK, f"llama_decode gave {code}"
            for number, likeliest in zip(chosen, context.logits().argmax(axis=1), strict=True):
                token_id = int(likeliest)
                is_end = token_id in end_ids
                counts[number] += not is_end
                if is_end or counts[number] == jobs[number].tokens_max:
                    del pending[number]
                else:
                    pending[number] = [token_id]
        elapsed_s, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_s
        for number in range(len(jobs)):
            context.remove(number, 0)
        return Burst(sum(counts), elapsed_s, cpu_s)

    def engine_burst(self, asks: Sequence[Ask]) -> Burst:
        messages = [self._message(ask) for ask in asks]
        begun_s, cpu_s = time.monotonic(), time.process_time()
        for message in messages:
            self._engine.enqueue(self._admission.job(message))
        left, tokens = len(asks), 0
        while left:
            for result in self._engine.step():
                assert not isinstance(result, JobFailed), result
                tokens += len(result.token_ids)
                left -= result.finish is not None
        return Burst(tokens, time.monotonic() - begun_s, time.process_time() - cpu_s)

    def close(self) -> None:
        self._engine.close()
        self._library.close()

    def _message(self, ask: Ask) -> Generate:
        self._next_id += 1
        return Generate(self._next_id, ask, 3_600_000, f"burst-{self._next_id}")


def _fitting(pending: dict[int, list[int]]) -> list[int]:
    """The streams whose tokens fit one batch; of those with long prompts the first ones."""
    chosen, room = [], BATCH_TOKENS_MAX
    for number, ids in pending.items():
        if len(ids) <= room:
            chosen.append(number)
            room -= len(ids)
    assert chosen, f"a prompt is longer than a batch of {BATCH_TOKENS_MAX} tokens"
    return chosen


def _ignore(_phase: Phase, _fraction: float) -> None:
    """Loading is not measured."""
