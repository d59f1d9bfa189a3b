"""Loads a GGUF file into a llama.cpp context that fits the machine's memory.

Rule 1: sizes are decided in Python before C code allocates: a model that does not fit is an
        error with figures, not a visit of the kernel's out-of-memory killer.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.config import ModelConfig
from rbee.engine.engine import LoadSpec, Progress
from rbee.engine.llamacpp import abi
from rbee.engine.llamacpp.batch import BATCH_TOKENS_MAX
from rbee.engine.llamacpp.context import AbortFlag, Context
from rbee.engine.llamacpp.gguf import Gguf, read_gguf
from rbee.engine.llamacpp.tokenizer import LlamaCppTokenizer
from rbee.errors import EngineError, ExitCode
from rbee.wire import Phase

BATCH_SIZE_DEFAULT: Final = 16
CACHE_BYTES_MAX: Final = 8 << 30  # of a cache whose size nobody asked for
CACHE_PART_MAX: Final = 0.5  # of the memory that is left beside the model, likewise
CELLS_STEP: Final = 256  # llama.cpp rounds the cache up to this
_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class CachePlan:
    """How much is computed and kept at once."""

    context_length: int
    batch_size: int
    cells: int  # tokens in the cache, all jobs together
    cell_bytes: int


@dataclass(slots=True)
class LoadedModel:
    """A model in memory. `close` gives it back."""

    library: ctypes.CDLL
    pointer: int
    context: Context
    tokenizer: LlamaCppTokenizer
    plan: CachePlan
    description: str
    can_share: bool  # sequences can be cut and copied: no recurrent state

    def close(self) -> None:
        self.context.close()
        self.library.llama_model_free(self.pointer)


def load_model(spec: LoadSpec, abort: AbortFlag, progress: Progress) -> LoadedModel:
    """Load what ``spec`` names, and compute one token with it.

    Raises:
      EngineError: the file, the memory or the library do not do.
    """
    if spec.path is None:
        raise EngineError("llamacpp needs a .gguf file, and the model names none", ExitCode.CONFIG)
    progress(Phase.LOADING, 0.0)
    gguf = read_gguf(spec.path)
    left = _memory_left() - gguf.file_bytes
    if left <= 0:
        raise EngineError(
            f"model file {spec.path} needs {_mib(gguf.file_bytes)} of memory,"
            f" {_mib(left + gguf.file_bytes)} are left",
            ExitCode.OUT_OF_MEMORY,
        )
    library = abi.load_library()
    pointer = _load_weights(library, spec.path, abort, progress)
    try:
        _check_kind(library, pointer, spec.path)
        trained = library.llama_model_n_ctx_train(pointer)
        plan = plan_cache(spec.model, trained, cell_bytes(gguf), left)
        tokenizer = LlamaCppTokenizer(library, pointer)
        progress(Phase.WARMING, 0.0)
        context = _open_context(library, pointer, plan, spec.threads, abort, tokenizer)
    except BaseException:
        library.llama_model_free(pointer)
        raise
    is_recurrent = library.llama_model_is_recurrent(pointer)
    can_share = not (is_recurrent or library.llama_model_is_hybrid(pointer))
    description = _description(library, pointer)
    return LoadedModel(library, pointer, context, tokenizer, plan, description, can_share)


def plan_cache(model: ModelConfig, trained: int, cell_bytes: int, left: int) -> CachePlan:
    """Decide how many tokens the cache holds.

    What the operator set is kept or refused. What nobody set gives way: the cache to at most
    `CACHE_BYTES_MAX`, and a model's own context length to the cache.

    Args:
      trained: the context length that the model was trained for.
      cell_bytes: of one token in the cache.
      left: bytes of memory beside the model.
    Raises:
      EngineError: what was set does not fit ``left``.
    """
    batch_size = min(model.batch_size or BATCH_SIZE_DEFAULT, abi.SEQUENCES_MAX)
    context_length = min(trained, model.context_length or trained)
    affordable = int(min(CACHE_BYTES_MAX, left * CACHE_PART_MAX)) // cell_bytes
    if model.cache_tokens is not None:
        cells = model.cache_tokens
    elif model.context_length is not None:
        cells = max(context_length, min(batch_size * context_length, affordable))
    else:
        cells = min(batch_size * context_length, max(affordable, CELLS_STEP))
    cells = -(-cells // CELLS_STEP) * CELLS_STEP
    if cells * cell_bytes > left:
        raise EngineError(
            f"a cache of {cells} tokens needs {_mib(cells * cell_bytes)} of memory,"
            f" {_mib(left)} are left beside the model: set a smaller context_length or"
            " cache_tokens",
            ExitCode.OUT_OF_MEMORY,
        )
    return CachePlan(min(context_length, cells), batch_size, cells, cell_bytes)


def cell_bytes(gguf: Gguf) -> int:
    """Bytes that one token takes in the cache: keys and values of all layers, in float16."""
    heads = gguf.number("attention.head_count", 1)
    width = gguf.number("embedding_length", 4096) // max(heads, 1)
    key = gguf.number("attention.key_length", width)
    value = gguf.number("attention.value_length", width)
    kv_heads = gguf.number("attention.head_count_kv", heads)
    return max(1, 2 * gguf.number("block_count", 1) * kv_heads * (key + value))


def _load_weights(library: ctypes.CDLL, path: Path, abort: AbortFlag, progress: Progress) -> int:
    failures: list[BaseException] = []

    def told(fraction: float, _data: object) -> bool:
        try:  # C code is above us: nothing may be raised through it
            progress(Phase.LOADING, min(max(fraction, 0.0), 1.0))
        except BaseException as error:  # noqa: BLE001  raised again below
            failures.append(error)
            return False
        return not abort.is_set

    params = library.llama_model_default_params().params
    params.n_gpu_layers = 0
    params.load_mode = abi.LOAD_MODE_MMAP
    params.progress_callback = callback = abi.ProgressCallback(told)
    abi.recent_errors.clear()
    pointer: int | None = library.llama_model_load_from_file(bytes(path), params)
    del callback
    if failures:
        if pointer:
            library.llama_model_free(pointer)
        raise failures[0]
    if not pointer:
        if abort.is_set:
            raise EngineError("loading was stopped", ExitCode.ENGINE_FATAL)
        raise _load_error(f"model file {path} cannot be loaded")
    return pointer


def _check_kind(library: ctypes.CDLL, pointer: int, path: Path) -> None:
    kinds: dict[str, Callable[[int], bool]] = {
        "has an encoder": library.llama_model_has_encoder,
        "is a diffusion model": library.llama_model_is_diffusion,
    }
    for kind, holds in kinds.items():
        if holds(pointer):
            raise EngineError(
                f"model file {path} {kind}; only decoders can generate here", ExitCode.DATA
            )
    if not library.llama_model_has_decoder(pointer):
        raise EngineError(f"model file {path} has no decoder", ExitCode.DATA)


def _open_context(  # noqa: PLR0913, PLR0917
    library: ctypes.CDLL,
    pointer: int,
    plan: CachePlan,
    threads: int,
    abort: AbortFlag,
    tokenizer: LlamaCppTokenizer,
) -> Context:
    tokens_max = max(BATCH_TOKENS_MAX, 2 * plan.batch_size)
    params = library.llama_context_default_params().params
    params.n_ctx = plan.cells
    params.n_batch = params.n_ubatch = tokens_max
    params.n_seq_max = params.n_outputs_max = plan.batch_size
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = True  # one pool of cells: a long job may take what others leave
    abi.recent_errors.clear()
    opened: int | None = library.llama_init_from_model(pointer, params)
    if not opened:
        raise _load_error(f"a context of {plan.cells} tokens cannot be made")
    library.llama_set_abort_callback(opened, abort.callback, abort.address)
    size = tokenizer.vocabulary_size
    context = Context(library, opened, tokens_max, plan.batch_size, size)
    code = context.warm_up(min(tokenizer.end_ids, default=0))
    if code != abi.DECODE_OK:
        context.close()
        raise _load_error(f"the first token cannot be computed: llama_decode gave {code}")
    return context


def _load_error(problem: str) -> EngineError:
    reasons = "; ".join(abi.recent_errors) or "the library gave no reason"
    no_memory = any(word in reasons for word in ("alloc", "out of memory"))
    code = ExitCode.OUT_OF_MEMORY if no_memory else ExitCode.DATA
    return EngineError(f"{problem}: {reasons}", code)


def _description(library: ctypes.CDLL, pointer: int) -> str:
    text = ctypes.create_string_buffer(128)
    library.llama_model_desc(pointer, text, len(text))
    return text.value.decode("utf-8", "replace")


def _memory_left() -> int:
    """Bytes that this process may still take, by the machine and by its cgroup."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    left = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    try:
        limit = (_CGROUP / "memory.max").read_text("ascii").strip()
        used = int((_CGROUP / "memory.current").read_text("ascii"))
    except (OSError, ValueError):  # no cgroup of version 2, or no limit at its root
        return left
    return left if limit == "max" else min(left, int(limit) - used)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
