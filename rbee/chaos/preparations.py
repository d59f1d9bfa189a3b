"""What must lie there before a server is started: half a model, a small disk."""

import ctypes
import os
import subprocess
from importlib import resources
from pathlib import Path
from typing import Final

SMALL_DISK_BYTES: Final = 512 * 1024

_CLONE_NEWNS: Final = 0x00020000  # linux/sched.h
_MS_REC_PRIVATE: Final = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE, linux/mount.h


def truncate_bee_tiny(folder: Path) -> None:
    """The first half of bee-tiny's file, as ``half.gguf``."""
    models = resources.files("rbee.models") / "bee_tiny"
    [source] = [entry for entry in models.iterdir() if entry.name.endswith(".gguf")]
    whole = source.read_bytes()
    (folder / "half.gguf").write_bytes(whole[: len(whole) // 2])


def keep_mounts_private() -> None:
    """What this process mounts from now on is seen by it and its children, and ends with them.

    To be called before there are other threads.

    Raises:
      OSError: only root may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def mount_small_disk(folder: Path) -> None:
    """Raises: CalledProcessError: it cannot be had."""
    options = f"size={SMALL_DISK_BYTES},mode=700,uid={os.geteuid()}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own words


def unmount_small_disk(folder: Path) -> None:
    """Raises: CalledProcessError: something still uses it."""
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)  # noqa: S603, S607
