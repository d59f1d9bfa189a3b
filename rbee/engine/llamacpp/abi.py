"""llama.cpp's C interface, as the pinned xllamacpp wheel exports it.

Rule 1: struct layouts and signatures stand here and nowhere else. They hold for exactly one
        wheel; `load_library` refuses any other, and checks the layouts against the defaults
        that the library itself fills in, so that a wrong one is an error and not a crash.
Rule 2: nothing here knows a job, a token or a model's file.
Source of the layouts: include/llama.h of llama.cpp, build 11549 (October 2026).
"""

import collections
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import sys
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any, Final

from rbee.errors import EngineError, ExitCode

XLLAMACPP_VERSION: Final = "2026.10.11549"
SEQUENCES_MAX: Final = 256  # LLAMA_MAX_SEQ, a constant of the build
LOAD_MODE_MMAP: Final = 1
FLASH_ATTENTION_AUTO: Final = -1
FLASH_ATTENTION_OFF: Final = 0
LOG_LEVEL_WARN: Final = 3
LOG_LEVEL_ERROR: Final = 4
LOG_LEVEL_CONTINUED: Final = 5  # the rest of the line before

DECODE_OK: Final = 0
DECODE_NO_ROOM: Final = 1  # no cells in the cache; nothing was changed
DECODE_ABORTED: Final = 2

ProgressCallback = ctypes.CFUNCTYPE(c_bool, c_float, c_void_p)
LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)


class ModelParams(ctypes.Structure):
    """struct llama_model_params."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", ProgressCallback),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(ctypes.Structure):
    """struct llama_context_params."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        # The abort callback, its data and a pointer that is new: `llama_set_abort_callback` is
        # used, so their order does not matter here.
        ("pointers", c_void_p * 3),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(ctypes.Structure):
    """struct llama_batch."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", c_void_p),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", c_void_p),
    )


# What the library's own defaults are, where they tell one field from its neighbours.
MODEL_DEFAULTS: Final = {
    "devices": None, "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1,
    "main_gpu": 0, "tensor_split": None, "kv_overrides": None, "vocab_only": False,
    "check_tensors": False, "use_extra_bufts": True, "no_host": False, "no_alloc": False,
    "load_mtp": False,
}  # fmt: skip
CONTEXT_DEFAULTS: Final = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0,
    "n_outputs_max": 0, "n_outputs_max_per_seq": 1, "n_threads": 4, "n_threads_batch": 4,
    "ctx_type": 0, "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1,
    "flash_attn_type": -1, "rope_freq_base": 0.0, "yarn_ext_factor": -1.0, "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0, "defrag_thold": -1.0, "cb_eval": None, "type_k": 1, "type_v": 1,
    "embeddings": False, "offload_kqv": True, "no_perf": True,
    "op_offload": True, "swa_full": True, "kv_unified": False, "samplers": None, "n_samplers": 0,
    "ctx_other": None,
}  # fmt: skip


def _padded(layout: type[ctypes.Structure]) -> type[ctypes.Structure]:
    """``layout`` with room behind it, so that a longer one of the library overruns nothing."""
    return type(
        f"Padded{layout.__name__}",
        (ctypes.Structure,),
        {"_fields_": (("params", layout), ("room", ctypes.c_uint8 * 512))},
    )


_PaddedModelParams: Final = _padded(ModelParams)
_PaddedContextParams: Final = _padded(ContextParams)

_SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (LogCallback, c_void_p)),
    "llama_version": (c_char_p, ()),
    "llama_model_default_params": (_PaddedModelParams, ()),
    "llama_context_default_params": (_PaddedContextParams, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_model_n_ctx_train": (c_int32, (c_void_p,)),
    "llama_model_desc": (c_int32, (c_void_p, c_char_p, c_size_t)),
    "llama_model_has_encoder": (c_bool, (c_void_p,)),
    "llama_model_has_decoder": (c_bool, (c_void_p,)),
    "llama_model_is_recurrent": (c_bool, (c_void_p,)),
    "llama_model_is_hybrid": (c_bool, (c_void_p,)),
    "llama_model_is_diffusion": (c_bool, (c_void_p,)),
    "llama_model_chat_template": (c_char_p, (c_void_p, c_char_p)),
    "llama_n_ctx_seq": (c_uint32, (c_void_p,)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_memory_seq_cp": (None, (c_void_p, c_int32, c_int32, c_int32, c_int32)),
    "llama_set_abort_callback": (None, (c_void_p, c_void_p, c_void_p)),
    "llama_set_warmup": (None, (c_void_p, c_bool)),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_get_logits": (c_void_p, (c_void_p,)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_vocab_bos": (c_int32, (c_void_p,)),
    "llama_vocab_eos": (c_int32, (c_void_p,)),
    "llama_vocab_get_add_bos": (c_bool, (c_void_p,)),
    "llama_vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "llama_vocab_is_control": (c_bool, (c_void_p, c_int32)),
    "llama_vocab_get_text": (c_char_p, (c_void_p, c_int32)),
    "llama_tokenize": (
        c_int32,
        (c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool),
    ),
    "llama_token_to_piece": (c_int32, (c_void_p, c_int32, c_void_p, c_int32, c_int32, c_bool)),
}

recent_errors: Final[collections.deque[str]] = collections.deque(maxlen=4)
"""The library's last lines of level error: why the call that just failed did."""


@functools.cache
def load_library() -> ctypes.CDLL:
    """Open the wheel's library, once per process, and check that it is the one we know.

    Raises:
      EngineError: not installed, another version, or a layout that is not ours.
    """
    # How often an OpenMP thread looks before it sleeps, at each of a step's hundred barriers.
    # The default, some milliseconds of spinning, lets a busy machine crawl: with two threads on
    # two cores shared with others a step took 100 times as long. 1000 cost nothing when idle.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    library = ctypes.CDLL(str(_library_path()))
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            message = f"xllamacpp {XLLAMACPP_VERSION} must export {name}, and does not"
            raise EngineError(message, ExitCode.CONFIG) from error
        function.restype, function.argtypes = result, arguments
    check_layout(library.llama_model_default_params().params, MODEL_DEFAULTS)
    check_layout(library.llama_context_default_params().params, CONTEXT_DEFAULTS)
    library.llama_log_set(_log_callback, None)
    library.llama_backend_init()
    return library


def check_layout(params: ctypes.Structure, expected: dict[str, Any]) -> None:
    """Hold a struct of defaults against what its fields must be.

    Raises:
      EngineError: a field is not as expected, so the layout must be another one.
    """
    for name, value in expected.items():
        found = getattr(params, name)
        if found != value:
            raise EngineError(
                f"layout of llama.cpp's {type(params).__name__} is not that of xllamacpp"
                f" {XLLAMACPP_VERSION}: default of {name} must be {value}, is {found}",
                ExitCode.CONFIG,
            )


def _library_path() -> Path:
    try:
        version = importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError as error:
        message = f"package xllamacpp {XLLAMACPP_VERSION} is not installed"
        raise EngineError(message, ExitCode.CONFIG) from error
    if version != XLLAMACPP_VERSION:
        message = f"package xllamacpp must be {XLLAMACPP_VERSION}, is {version}"
        raise EngineError(message, ExitCode.CONFIG)
    # The package itself is not imported: it would load the same library a second way in.
    spec = importlib.util.find_spec("xllamacpp")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("xllamacpp*.so")):
            return path
    raise EngineError("package xllamacpp holds no library file", ExitCode.CONFIG)


def _log(level: int, text: bytes | None, _data: object) -> None:
    """Pass warnings and errors on to stderr, which the supervisor reads line by line."""
    if level != LOG_LEVEL_CONTINUED:
        _log_level[0] = level
    if _log_level[0] not in (LOG_LEVEL_WARN, LOG_LEVEL_ERROR) or not text:
        return
    line = text.decode("utf-8", "replace").rstrip()
    if not line:
        return
    if _log_level[0] == LOG_LEVEL_ERROR:
        recent_errors.append(line)
    # One write per line, and straight to the descriptor: this may run in any thread, at exit too.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"llama.cpp: {line}\n".encode())


_log_level: Final = [0]
_log_callback: Final = LogCallback(_log)  # a reference for ever: the library keeps the pointer
