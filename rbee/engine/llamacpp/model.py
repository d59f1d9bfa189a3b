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
THREAD_BYTES_MIN: Final = 16 << 20  # of weights: threads with less wait more than they compute
CONTEXT_LENGTH_KEPT: Final = 4096  # as far as the model goes; fewer requests at once, rather
CELLS_STEP: Final = 256  # llama.cpp rounds a sequence's cells up to this

# Flash attention makes no matrix of scores, but it adds up in 16 bits when it decodes and in 32
# when it reads a prompt: an answer that is resumed drifts from the undisturbed one. Without it
# both agree to the rounding of the cache. So it is used where the matrix would be larger.
SCORES_BYTES_MAX: Final = 256 << 20

# Models up to this size are computed so that an answer has the same words whatever was computed
# before and beside it, and wherever it goes on (`batch.plan_exact`). An answer that is resumed is
# computed again token by token then, which would take a larger model minutes.
EXACT_BYTES_MAX: Final = 256 << 20

# Types of matrices (ggml's numbers) of which llama.cpp computes each row of a batch by itself, with
# the same kernel for any number of rows. Others have a second one for several rows, which adds up
# in another order. Held by a test for 1 to 16 rows. Q4_1 passes here as well, but not everywhere:
# on ARM it has a kernel for two rows. Q2_K, Q3_K, Q5_K and Q6_K differ from 8 rows on.
ROW_BY_ROW: Final = frozenset({7})  # Q5_1
_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class CachePlan:
    """How much is computed and kept at once. Each job has cells for a whole context."""

    context_length: int
    batch_size: int
    cache_bytes: int
    with_flash_attention: bool


@dataclass(slots=True)
class LoadedModel:
    """A model in memory. `close` gives it back."""

    library: ctypes.CDLL
    pointer: int
    context: Context
    tokenizer: LlamaCppTokenizer
    plan: CachePlan
    threads: int
    description: str
    can_share: bool  # sequences can be cut and copied: no recurrent state
    is_exact: bool  # see `EXACT_BYTES_MAX`
    is_row_by_row: bool  # see `ROW_BY_ROW`

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
    threads = max(1, min(spec.threads, gguf.file_bytes // THREAD_BYTES_MIN))
    library = abi.load_library()
    pointer = _load_weights(library, spec.path, abort, progress)
    try:
        _check_kind(library, pointer, spec.path)
        trained = library.llama_model_n_ctx_train(pointer)
        plan = plan_cache(spec.model, trained, gguf, left)
        tokenizer = LlamaCppTokenizer(library, pointer)
        progress(Phase.WARMING, 0.0)
        context = _open_context(library, pointer, plan, threads, abort, tokenizer)
    except BaseException:
        library.llama_model_free(pointer)
        raise
    is_recurrent = library.llama_model_is_recurrent(pointer)
    can_share = not (is_recurrent or library.llama_model_is_hybrid(pointer))
    description = _description(library, pointer)
    return LoadedModel(
        library, pointer, context, tokenizer, plan, threads, description, can_share,
        is_exact=can_share and gguf.file_bytes <= EXACT_BYTES_MAX,
        is_row_by_row=gguf.matrix_types <= ROW_BY_ROW,
    )  # fmt: skip


def plan_cache(model: ModelConfig, trained: int, gguf: Gguf, left: int) -> CachePlan:
    """Decide how many jobs run at once, and how long they may be.

    What the operator set is kept or refused. What nobody set gives way to the memory: first
    the context length, down to `CONTEXT_LENGTH_KEPT`, then the batch size.

    Args:
      trained: the context length that the model was trained for.
      left: bytes of memory beside the model.
    Raises:
      EngineError: what was set does not fit ``left``.
    """
    cell = cell_bytes(gguf)
    cells = model.cache_tokens or int(min(CACHE_BYTES_MAX, left * CACHE_PART_MAX)) // cell
    wanted = min(model.batch_size or BATCH_SIZE_DEFAULT, abi.SEQUENCES_MAX)
    context_length = min(trained, model.context_length or trained)
    if model.context_length is None:
        kept = min(max(cells // wanted, CONTEXT_LENGTH_KEPT), max(cells, CELLS_STEP))
        context_length = min(context_length, kept)
    rounded = -(-context_length // CELLS_STEP) * CELLS_STEP
    fitting = max(1, cells // rounded)
    batch_size = min(wanted, fitting) if model.batch_size is None or model.cache_tokens else wanted
    cache_bytes = batch_size * rounded * cell
    if cache_bytes > left:
        raise EngineError(
            f"a cache for {batch_size} requests of {context_length} tokens needs"
            f" {_mib(cache_bytes)} of memory, {_mib(left)} are left beside the model:"
            " set a smaller context_length or batch_size",
            ExitCode.OUT_OF_MEMORY,
        )
    scores_bytes = 4 * gguf.number("attention.head_count", 1) * rounded * BATCH_TOKENS_MAX
    return CachePlan(context_length, batch_size, cache_bytes, scores_bytes > SCORES_BYTES_MAX)


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
    tokens_max = BATCH_TOKENS_MAX + plan.batch_size  # prompts, and one of each other sequence
    params = library.llama_context_default_params().params
    params.n_ctx = plan.batch_size * plan.context_length
    params.n_batch = params.n_ubatch = tokens_max
    params.n_seq_max = params.n_outputs_max = plan.batch_size
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = (
        abi.FLASH_ATTENTION_AUTO if plan.with_flash_attention else abi.FLASH_ATTENTION_OFF
    )
    abi.recent_errors.clear()
    opened: int | None = library.llama_init_from_model(pointer, params)
    if not opened:
        raise _load_error(f"a context for {plan.batch_size} requests cannot be made")
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
