"""`ExLlamaV2Engine`: the seam's engine on a GPU.

Rule 1: whatever the library raises in a step leaves this process unfit; `fatal` says so.
Rule 2: what one request could break for all is refused in `enqueue`: a token id that the model
        does not have is an assertion on the GPU, which ends the process.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

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
from rbee.engine.exllamav2.answer import Answer
from rbee.engine.exllamav2.batch import Batch
from rbee.engine.exllamav2.faults import fatal
from rbee.engine.exllamav2.files import read_files
from rbee.engine.exllamav2.foreign import Foreign
from rbee.engine.exllamav2.library import Library, open_library
from rbee.engine.exllamav2.load import Loaded, load_model
from rbee.engine.exllamav2.tokenizer import HfTokenizer
from rbee.engine.grammar import GrammarFactory
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError
from rbee.wire import Phase


class ExLlamaV2Engine:
    """One model on one GPU."""

    def __init__(self) -> None:
        self._library: Library | None = None
        self._loaded: Loaded | None = None
        self._tokenizer: HfTokenizer | None = None
        self._grammars: GrammarFactory | None = None
        self._batch: Batch | None = None
        self._is_fit = False  # to touch the GPU: loaded, and no fault since

    def load(self, spec: LoadSpec, progress: Progress) -> EngineInfo:
        if spec.path is None:
            raise EngineError("exllamav2 needs a model's folder", ExitCode.CONFIG)
        files = read_files(spec.path)
        progress(Phase.IMPORTING, 0.0)
        library = open_library(spec.model.gpu, lambda done: progress(Phase.IMPORTING, done))
        self._library = library
        self._tokenizer = HfTokenizer(files)
        loaded = load_model(library, files, spec.model, progress, spec.vram_bytes_max)
        self._loaded = loaded
        self._grammars = _grammars(self._tokenizer)
        self._batch = Batch(
            loaded.generator,
            batch_size=loaded.plan.batch_size,
            prefill_tokens=loaded.plan.prefill_tokens,
            piece=self._tokenizer.piece,
        )
        self._is_fit = True
        return self._info(library, loaded, self._tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._tokenizer is not None, "the tokenizer is there after load"
        return self._tokenizer

    def enqueue(self, job: Job) -> None:
        batch, loaded, library = self._batch, self._loaded, self._library
        tokenizer, grammars = self._tokenizer, self._grammars
        assert batch is not None
        assert loaded is not None
        assert library is not None
        assert tokenizer is not None
        ids_end = min(tokenizer.vocabulary_size, loaded.model.config.vocab_size)
        _check(job, ids_end, loaded.plan.context_length)
        grammar = None
        if job.json_schema is not None:
            answered = job.prompt_ids[len(job.prompt_ids) - job.resumed :]
            assert grammars is not None, "Feature.JSON_SCHEMA is there without end tokens"
            grammar = grammars.json_schema(job.json_schema, answered, job.cache_salt)
        batch.add(Answer(job, library, tokenizer, loaded.padded_vocabulary, grammar))

    def step(self) -> list[Sampled | JobFailed]:
        assert self._batch is not None, "step comes after load"
        with self._fatal("an engine step"):
            return self._batch.step()

    @property
    def phase(self) -> Phase:
        if self._batch is None or self._batch.is_empty:
            return Phase.IDLE
        return Phase.PREFILL if self._batch.is_prefilling else Phase.DECODE

    @property
    def read_tokens(self) -> int:
        return 0 if self._batch is None else self._batch.read_tokens

    def cancel(self, job_id: int) -> None:
        if self._batch is not None:
            with self._fatal("a cancel"):
                self._batch.remove(job_id)

    def close(self) -> None:
        """Give back what can be; all VRAM is only surely free when the process has ended."""
        batch, loaded, library = self._batch, self._loaded, self._library
        self._batch = self._loaded = self._grammars = None
        if batch is not None:
            batch.clear()
        if self._is_fit and loaded is not None and library is not None:
            self._is_fit = False
            loaded.model.unload()
            del loaded, batch
            gc.collect()
            library.torch.cuda.empty_cache()

    @contextmanager
    def _fatal(self, action: str) -> Iterator[None]:
        try:
            with fatal(action):
                yield
        except EngineError:
            self._is_fit = False  # after a CUDA error every call to CUDA is one
            raise

    def _info(self, library: Library, loaded: Loaded, tokenizer: HfTokenizer) -> EngineInfo:
        features = {Feature.LOGPROBS, Feature.LOGIT_BIAS}
        if self._grammars is not None:
            features.add(Feature.JSON_SCHEMA)
        if tokenizer.chat_template is not None:
            features.add(Feature.CHAT)
        plan = loaded.plan
        cache = "FP16" if plan.cache_bits == 16 else f"Q{plan.cache_bits}"
        return EngineInfo(
            engine="exllamav2",
            device=library.device,
            context_length=plan.context_length,
            batch_size=plan.batch_size,
            features=frozenset(features),
            vram_bytes=int(library.torch.cuda.memory_reserved(0)),
            detail=_detail(library, loaded.model.config, cache, plan.cache_tokens),
        )


def _grammars(tokenizer: HfTokenizer) -> GrammarFactory | None:
    """None for a model that cannot end an answer."""
    if not tokenizer.end_ids:
        return None
    grammars = GrammarFactory(tokenizer)
    grammars.prepare()  # linear in the vocabulary: no request is to wait for it
    return grammars


def _detail(library: Library, config: Foreign, cache: str, cache_tokens: int) -> dict[str, str]:
    return {
        "attention": library.attention,
        "cache": f"{cache} {cache_tokens} tokens",
        "architecture": str(config.architecture),
        "exllamav2": str(library.exllamav2.__version__),
        "torch": str(library.torch.__version__),
        "cuda": str(library.torch.version.cuda),
    }


def _check(job: Job, vocabulary_size: int, context_length: int) -> None:
    if any(not 0 <= token_id < vocabulary_size for token_id in job.prompt_ids):
        raise RequestError(
            ErrorCode.INVALID_REQUEST,
            f"prompt holds token ids that the model does not have: it has {vocabulary_size}",
            param="prompt",
        )
    if any(not 0 <= token_id < vocabulary_size for token_id in job.sampling.logit_bias):
        raise RequestError(
            ErrorCode.INVALID_REQUEST,
            f"logit_bias names token ids that the model does not have: it has {vocabulary_size}",
            param="logit_bias",
        )
    if len(job.prompt_ids) + job.tokens_max > context_length:
        raise RequestError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"this model's context length is {context_length} tokens; the prompt has"
            f" {len(job.prompt_ids)} and {job.tokens_max} more are asked for",
        )
