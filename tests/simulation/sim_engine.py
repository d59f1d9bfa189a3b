"""What the engine of a simulated worker computes: steps through prompts and tokens. Pure.

Rule: an answer is what `oracle` says, whatever happened to the workers before this one.
"""

import random
from dataclasses import dataclass

from rbee.ask import Ask
from rbee.errors import ErrorCode
from rbee.wire import Delta, Failed, Generate
from tests.simulation.oracle import Script, ask_key, length, text_between, tokens
from tests.simulation.scenario import ModelPlan


@dataclass(slots=True)
class Job:
    """A request that is worked on."""

    request_id: int
    correlation_id: str
    script: Script
    key: str
    whole: int  # tokens of the answer
    done: int  # of them, those of earlier workers too
    deadline_s: float
    began_s: float
    prompt_left: int
    has_told_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one step brought."""

    deltas: tuple[Delta, ...] = ()
    failed: tuple[Failed, ...] = ()
    poisoned_by: Job | None = None  # it ends the worker instead of bringing anything


class SimEngine:
    """The requests of one worker."""

    def __init__(self, model: ModelPlan, own: random.Random) -> None:
        self.jobs: dict[int, Job] = {}
        self.steps = 0
        self.tokens = 0
        self.slowest_step_s = 0.0
        self.read_tokens = 0
        self.read_tokens_per_s = 0.0
        self._model = model
        self._own = own
        self._reading: Job | None = None
        self._step_s = 0.0

    @property
    def prompt_tokens(self) -> int:
        """Of the requests that have no token yet."""
        waiting = (each for each in self.jobs.values() if not each.has_told_prompt)
        return sum(each.script.prompt_tokens + each.done for each in waiting)

    @property
    def is_reading(self) -> bool:
        return self._reading is not None

    def enqueue(self, message: Generate, script: Script, now_s: float) -> Failed | None:
        """Begin a request, or say why not."""
        ask: Ask = message.ask
        if script.failure is not None and script.failure is not ErrorCode.ENGINE_FAILED:
            return Failed(message.request_id, script.failure, "refused")
        resumed = len(message.resume_ids)
        self.jobs[message.request_id] = Job(
            request_id=message.request_id,
            correlation_id=message.correlation_id,
            script=script,
            key=ask_key(ask),
            whole=length(script, ask),
            done=resumed,
            deadline_s=now_s + message.remaining_ms / 1000,
            began_s=now_s,
            prompt_left=script.prompt_tokens + resumed,
        )
        return None

    def expired(self, now_s: float) -> list[Failed]:
        late = [each.request_id for each in self.jobs.values() if now_s >= each.deadline_s]
        for request_id in late:
            del self.jobs[request_id]
        return [Failed(each, ErrorCode.DEADLINE_EXCEEDED, "late") for each in late]

    def begin_step(self) -> float:
        """How long the next step takes."""
        model = self._model
        self._reading = next((each for each in self.jobs.values() if each.prompt_left), None)
        self._step_s = model.step_s * self._own.uniform(0.8, 1.25)
        if self._reading is not None:
            chunk = min(model.prompt_chunk, self._reading.prompt_left)
            self._step_s = max(self._step_s, chunk / model.prompt_tokens_per_s)
        return self._step_s

    def end_step(self) -> Stepped:
        reading, self._reading = self._reading, None
        if reading is not None:
            chunk = min(self._model.prompt_chunk, reading.prompt_left)
            reading.prompt_left -= chunk
            self.read_tokens += chunk
            self.read_tokens_per_s = chunk / self._step_s
        else:
            self.slowest_step_s = max(self.slowest_step_s, self._step_s)
        takes_part = [
            each
            for each in self.jobs.values()
            if not each.prompt_left
            and (reading is None or self._model.reads_beside or each is reading)
        ]
        self.steps += 1
        deltas: list[Delta] = []
        failed: list[Failed] = []
        for job in takes_part:
            count = self._own.randint(1, self._model.step_tokens_max)
            if job.script.poison is not None and job.done + count > job.script.poison_at:
                return Stepped(poisoned_by=job)
            self._bring(job, count, deltas, failed)
        return Stepped(tuple(deltas), tuple(failed))

    def _bring(self, job: Job, count: int, deltas: list[Delta], failed: list[Failed]) -> None:
        script, start = job.script, job.done
        fails = script.failure is ErrorCode.ENGINE_FAILED
        stop = min(start + count, script.fails_at if fails else job.whole)
        if fails and start >= script.fails_at:
            del self.jobs[job.request_id]
            failed.append(Failed(job.request_id, ErrorCode.ENGINE_FAILED, "the engine failed"))
            return
        is_end = not fails and stop == job.whole
        # An end that the model chooses may be known only when its last token has left.
        if is_end and start < stop and script.finish == "stop" and self._own.random() < 0.3:
            is_end = False
        deltas.append(
            Delta(
                request_id=job.request_id,
                index=start,
                token_ids=tokens(job.key, start, stop),
                text=text_between(job.key, start, stop, is_end=is_end),
                finish=script.finish if is_end else None,
                prompt_tokens=0 if job.has_told_prompt else script.prompt_tokens,
            )
        )
        job.done, job.has_told_prompt = stop, True
        self.tokens += stop - start
        if is_end:
            del self.jobs[job.request_id]
