"""What the library raises, said as an `EngineError`: the gate for its exceptions.

Rule: after any exception out of the library the state of its cache and of CUDA is unknown,
      so none of them is survived; only the exit code differs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rbee.errors import EngineError, ExitCode, RequestError

# As it reaches a log: enough for a CUDA error with its cause.
MESSAGE_CHARACTERS_MAX: Final = 600

_OUT_OF_MEMORY: Final = ("CUDA out of memory", "Insufficient VRAM", "CUDA error: out of memory")

_CUDA_FAULTS: Final = ("CUDA error", "CUDA driver", "cuBLAS", "CUBLAS", "NVRTC")


@contextmanager
def fatal(action: str) -> Iterator[None]:
    """Turn whatever the library raises into an `EngineError` that ends the process.

    Args:
      action: what was being done, as a noun: "an engine step".
    """
    try:
        yield
    except (EngineError, RequestError):
        raise
    except Exception as error:
        raise as_engine_error(error, action, ExitCode.ENGINE_FATAL) from error


def as_engine_error(error: Exception, action: str, otherwise: ExitCode) -> EngineError:
    """Say what ``error`` means.

    Args:
      otherwise: the exit code if it is neither want of memory nor a fault of CUDA.
    """
    text = " ".join(str(error).split())[:MESSAGE_CHARACTERS_MAX]
    said = f"exllamav2 failed in {action}: {type(error).__name__}: {text or 'no message'}"
    if is_out_of_memory(error):
        return EngineError(said, ExitCode.OUT_OF_MEMORY)
    is_of_cuda = isinstance(error, RuntimeError) and any(each in text for each in _CUDA_FAULTS)
    return EngineError(said, ExitCode.ENGINE_FATAL if is_of_cuda else otherwise)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether VRAM or RAM ran out. By name, so that torch need not be there to ask."""
    names = {each.__name__ for each in type(error).__mro__}
    if "OutOfMemoryError" in names or "MemoryError" in names:
        return True
    return any(each in str(error) for each in _OUT_OF_MEMORY)
