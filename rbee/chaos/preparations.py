"""What must lie there before a server is started: half a model, a small disk."""

import ctypes
import os
from importlib import resources
from pathlib import Path
from typing import Final

from rbee.chaos.processes import adopt_orphans, heed_sigterm

SMALL_DISK_BYTES: Final = 512 * 1024
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a mount point
SHARED_MEMORY_BYTES: Final = 256 * 1024 * 1024

_CLONE_NEWNS: Final = 0x00020000  # linux/sched.h
_MS_REC_PRIVATE: Final = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE, linux/mount.h


def truncate_bee_tiny(folder: Path) -> None:
    """The first half of bee-tiny's file, as ``half.gguf``."""
    models = resources.files("rbee.models") / "bee_tiny"
    [source] = [entry for entry in models.iterdir() if entry.name.endswith(".gguf")]
    whole = source.read_bytes()
    (folder / "half.gguf").write_bytes(whole[: len(whole) // 2])


def prepare_process() -> None:
    """Make this process one that may hold a drill. To be called before there are other threads.

    Raises:
      OSError: the kernel does not let it.
    """
    adopt_orphans()
    heed_sigterm()
    if os.geteuid() == 0:
        _keep_mounts_private()


def _keep_mounts_private() -> None:
    """What this process mounts from now on is seen by it and its children, and ends with them.

    Shared memory is made private at once: what lies in it later is theirs.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    _mount_memory(SHARED_MEMORY, SHARED_MEMORY_BYTES, 0o1777)


def mount_small_disk(folder: Path) -> None:
    """Raises: OSError: it cannot be had."""
    _mount_memory(folder, SMALL_DISK_BYTES, 0o700)


def unmount(folder: Path) -> None:
    """Raises: OSError: something still uses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount(bytes(folder)) != 0:
        raise OSError(ctypes.get_errno(), f"umount {folder}")


def _mount_memory(folder: Path, size_bytes: int, mode: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size_bytes},mode={mode:o}".encode()
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), f"mount {folder}")
