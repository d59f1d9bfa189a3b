"""Drives an engine as a worker's loop does, and collects what each job got."""

from dataclasses import dataclass, field

from rbee.ask import FinishReason, Sampling, TokenLogprob
from rbee.engine.engine import Engine, Job, JobFailed, LoadSpec
from rbee.errors import RequestError
from rbee.wire import Phase

STEPS_MAX = 20_000  # more than any test needs: one that hangs fails instead

GREEDY = Sampling(temperature=0)


@dataclass
class Answer:
    """What one job got."""

    token_ids: list[int] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    error: RequestError | None = None
    first_step: int = 0  # in which step its first token came

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def is_over(self) -> bool:
        return self.finish is not None or self.error is not None


class Driven:
    """An engine, loaded, and its open jobs."""

    def __init__(self, engine: Engine, spec: LoadSpec) -> None:
        self.engine = engine
        self.progress: list[tuple[Phase, float]] = []
        self.info = engine.load(spec, lambda phase, part: self.progress.append((phase, part)))
        self.answers: dict[int, Answer] = {}
        self.steps = 0
        self._last_id = 0

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.engine.tokenizer.encode(text, special=False, bos=True))

    def start(
        self,
        prompt: str | tuple[int, ...],
        tokens_max: int,
        sampling: Sampling = GREEDY,
        *,
        json_schema: str | None = None,
        resumed: int = 0,
        cache_salt: bytes = b"",
    ) -> int:
        """Enqueue a job. Gives its id."""
        self._last_id += 1
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        self.engine.enqueue(
            Job(self._last_id, ids, tokens_max, sampling, json_schema, resumed, cache_salt)
        )
        self.answers[self._last_id] = Answer()
        return self._last_id

    def step(self) -> None:
        """One engine step. What it brings must be for an open job, once."""
        self.steps += 1
        seen: set[int] = set()
        for result in self.engine.step():
            answer = self.answers[result.job_id]
            assert not answer.is_over, "a job that is over got more"
            assert result.job_id not in seen, "a job came twice in one step"
            seen.add(result.job_id)
            if isinstance(result, JobFailed):
                answer.error = result.error
                continue
            if result.token_ids and not answer.token_ids:
                answer.first_step = self.steps
            answer.token_ids += result.token_ids
            answer.pieces += result.pieces
            answer.logprobs += result.logprobs
            answer.finish = result.finish

    def finish(self, *job_ids: int) -> list[Answer]:
        """Step until these jobs are over. Gives their answers."""
        for _ in range(STEPS_MAX):
            if all(self.answers[job_id].is_over for job_id in job_ids):
                return [self.answers[job_id] for job_id in job_ids]
            self.step()
        raise AssertionError(f"jobs are not over after {STEPS_MAX} steps")

    def answer(
        self,
        prompt: str | tuple[int, ...],
        tokens_max: int,
        sampling: Sampling = GREEDY,
        *,
        json_schema: str | None = None,
        resumed: int = 0,
        cache_salt: bytes = b"",
    ) -> Answer:
        """Run one job alone."""
        job_id = self.start(
            prompt, tokens_max, sampling, json_schema=json_schema, resumed=resumed,
            cache_salt=cache_salt,
        )  # fmt: skip
        return self.finish(job_id)[0]

    def step_until_token(self, job_id: int, count: int = 1) -> None:
        for _ in range(STEPS_MAX):
            if len(self.answers[job_id].token_ids) >= count:
                return
            self.step()
        raise AssertionError(f"no token after {STEPS_MAX} steps")

    def cancel(self, job_id: int) -> None:
        self.engine.cancel(job_id)

    def cancel_all(self) -> None:
        for job_id, answer in self.answers.items():
            if not answer.is_over:
                self.engine.cancel(job_id)
        self.answers.clear()
