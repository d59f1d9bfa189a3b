"""The seam between a worker and what generates in it.

Rule 1: one thread owns an engine: `load`, `enqueue`, `step`, `cancel` and `close` are called
        by it alone, one at a time.
Rule 2: an engine deals in tokens. Chat templates, text, stop strings, deadlines and usage are
        the worker's, the same for all engines (`chat.py`, `text.py`, `loop.py`).
Rule 3: an engine that cannot go on in this process raises `EngineError`; the worker says Bye
        and ends. What concerns one job alone is a `JobFailed`, or a `RequestError` of `enqueue`.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rbee.ask import FinishReason, Sampling, TokenLogprob
from rbee.config import ModelConfig
from rbee.errors import RequestError
from rbee.wire import Phase


class Feature(enum.StrEnum):
    """What an engine can do beyond plain sampling. A request that needs more gets a 400."""

    LOGPROBS = "logprobs"
    LOGIT_BIAS = "logit_bias"
    JSON_SCHEMA = "json_schema"
    CHAT = "chat"  # the model has a chat template


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to load, checked by the supervisor."""

    model: ModelConfig
    path: Path | None  # None: the synthetic engine
    threads: int
    vram_bytes_max: int | None = None  # reserved for it on its GPU; None: nobody has counted


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded."""

    engine: str
    device: str
    context_length: int  # tokens of prompt and answer together, of one job
    batch_size: int  # jobs at once
    features: frozenset[Feature]
    vram_bytes: int = 0
    detail: dict[str, str] = field(default_factory=dict)


Progress = Callable[[Phase, float], None]
"""``progress(phase, fraction)``: told before a call that blocks and as loading advances."""


class Tokenizer(Protocol):
    """Text to tokens and back. Pure, usable after `Engine.load`."""

    chat_template: str | None  # jinja2 source from the model's files
    bos_token: str  # "" where the model has none
    eos_token: str

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """Tokenise ``text``.

        Args:
          special: whether the text of special tokens becomes those tokens (a rendered chat
            template) or stays plain text (a client's prompt).
          bos: whether to put the beginning-of-sequence token first, where the model wants one.
        """
        ...

    def piece(self, token_id: int) -> bytes:
        """The bytes that a token stands for, maybe half a character. b"" for special tokens."""
        ...

    @property
    def vocabulary_size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One generation, as an engine sees it."""

    job_id: int
    prompt_ids: tuple[int, ...]  # never empty; shorter than the context length
    tokens_max: int  # >= 1; prompt and answer together fit the context length
    sampling: Sampling
    json_schema: str | None = None  # the answer must match it
    # How many ids at the end of ``prompt_ids`` are the answer so far, from a worker that is
    # gone: penalties, the grammar and the seed's draws count them as generated.
    resumed: int = 0
    # What the engine keeps of this job, of prompts and of schemas, is reused for jobs with the
    # same salt alone: how soon an answer comes tells nobody what others have asked.
    cache_salt: bytes = b""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step brought one job: usually one token.

    The end-of-sequence token is never among ``token_ids``; it is said by ``finish``="stop".
    ``finish``="length" comes with the last of ``tokens_max`` tokens.
    """

    job_id: int
    token_ids: Sequence[int]
    pieces: Sequence[bytes]  # one per token
    logprobs: Sequence[TokenLogprob] = ()  # one per token if the job asked for them
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job that ended by its own fault; the engine has forgotten it."""

    job_id: int
    error: RequestError


class Engine(Protocol):
    """What generates. Adapters: `synthetic`, `llamacpp`, `exllamav2`."""

    def load(self, spec: LoadSpec, progress: Progress) -> EngineInfo:
        """Load the model; afterwards `tokenizer` may be used.

        Raises:
          EngineError: the files, the memory or the device do not do.
        """
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def enqueue(self, job: Job) -> None:
        """Take a job. It joins the running batch at the next step, or when there is room.

        Raises:
          RequestError: this job cannot be done by this engine; nothing was taken.
        """
        ...

    def step(self) -> list[Sampled | JobFailed]:
        """Do one engine step for all jobs. Blocks for at most one step; [] when there are none.

        A long prefill is cut into chunks of one step each, so that others are not held up
        for longer than a chunk, and `cancel` acts between two.
        """
        ...

    @property
    def phase(self) -> Phase:
        """What the next `step` will do: IDLE, PREFILL (a prompt is being read) or DECODE."""
        ...

    @property
    def read_tokens(self) -> int:
        """How many tokens were read so far, in all, before answers begin: of prompts, and of
        answers that another worker began. What grows here between two tokens is progress.
        """
        ...

    def cancel(self, job_id: int) -> None:
        """Forget a job, queued or running, and free its memory. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """Give everything back. Safe to call twice, and after a failed load."""
        ...
