"""exllamav2, torch and flash-attn, imported and made fit for us: the gate of this package.

Rule 1: only this file imports them (and `attention.py`, which it imports).
Rule 2: a worker sees one GPU, the one of its model. exllamav2's loader goes on to the next GPU
        when one is full, and would take memory that belongs to another worker.
Rule 3: what is missing is an error that says how to mend it; there is no other engine to try.
"""

import importlib
import os
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Final

from rbee.engine.exllamav2.foreign import Foreign
from rbee.engine.exllamav2.prepare import load_extension
from rbee.errors import EngineError, ExitCode

EXLLAMAV2_VERSION: Final = "0.3.2"

_FLASH_ATTN: Final = "flash-attn"

INSTALL: Final = "pip install 'rbee[exllamav2]'"


@dataclass(frozen=True, slots=True)
class Library:
    """The modules, and the GPU that they see."""

    torch: Foreign
    exllamav2: Foreign
    generator: Foreign  # exllamav2.generator
    pages: Foreign  # the module of it that keeps the pages of the cache
    attention: str  # which attention runs, for the operator
    has_flash_attn: bool
    device: str  # "cuda:1 NVIDIA H200"


def open_library(gpu: int, tell: Callable[[float], None]) -> Library:
    """Import everything for a model on GPU number ``gpu``.

    Args:
      tell: takes the fraction that is done.
    Raises:
      EngineError: CONFIG; a package, the GPU or the built extension is missing.
    """
    choose_gpu(os.environ, gpu)
    tell(0.1)
    torch = _import("torch")
    _check_cuda(torch, gpu)
    tell(0.5)
    load_extension(torch)
    tell(0.7)
    exllamav2 = _import("exllamav2")
    version = str(exllamav2.__version__).partition("+")[0]
    if version != EXLLAMAV2_VERSION:
        raise EngineError(
            f"exllamav2 must be {EXLLAMAV2_VERSION}, found {version}: {INSTALL}", ExitCode.CONFIG
        )
    attention = _choose_attention(_import("exllamav2.attn"))
    generator = _import("exllamav2.generator")
    tell(0.9)
    return Library(
        torch=torch,
        exllamav2=exllamav2,
        generator=generator,
        pages=_import(generator.ExLlamaV2DynamicJob.__module__),
        attention=attention,
        has_flash_attn=attention.startswith(_FLASH_ATTN),
        device=f"cuda:{gpu} {torch.cuda.get_device_name(0)}",
    )


def choose_gpu(environ: MutableMapping[str, str], gpu: int) -> None:
    """Make this process see one GPU alone. To be called before torch is imported.

    Args:
      environ: where the operator's own CUDA_VISIBLE_DEVICES may stand; ``gpu`` counts in it.
    Raises:
      EngineError: CONFIG; the operator's list has no such entry.
    """
    # As nvidia-smi and NVML count; CUDA's own order is by speed.
    environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
        return
    visible = [each.strip() for each in listed.split(",") if each.strip()]
    if gpu >= len(visible):
        raise EngineError(
            f"the model asks for gpu {gpu}, but CUDA_VISIBLE_DEVICES={listed!r} lists"
            f" {len(visible)}",
            ExitCode.CONFIG,
        )
    environ["CUDA_VISIBLE_DEVICES"] = visible[gpu]


def _import(name: str) -> Foreign:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"{name} cannot be imported ({error}): {INSTALL}", ExitCode.CONFIG
        ) from error


def _check_cuda(torch: Foreign, gpu: int) -> None:
    if torch.version.cuda is None:
        raise EngineError(
            f"the model asks for gpu {gpu}, but torch {torch.__version__} is built without CUDA:"
            " install a CUDA build of torch",
            ExitCode.CONFIG,
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise EngineError(
            f"the model asks for gpu {gpu}, but CUDA finds no such GPU on this machine; see"
            " nvidia-smi, or choose a model that runs on the CPU",
            ExitCode.CONFIG,
        )
    if count > 1:
        raise EngineError(
            f"expected to see one GPU, found {count}: CUDA was in use before the model's GPU was"
            " chosen",
            ExitCode.SOFTWARE,
        )


def _choose_attention(attn: Foreign) -> str:
    """flash-attn if exllamav2 found it, else our own; batching needs one of them."""
    package = getattr(attn, "flash_attn", None)  # there if the import was tried and went well
    if package is not None and attn.has_flash_attn_with_paged:
        return f"{_FLASH_ATTN} {package.__version__}"
    from rbee.engine.exllamav2 import attention  # noqa: PLC0415

    attention.install(attn)
    return f"torch ({_FLASH_ATTN} cannot be imported)"
