"""What must lie there before a server is started: half a model, a small disk, secrets."""

import ctypes
import os
import secrets
import ssl
import subprocess
from importlib import resources
from pathlib import Path
from typing import Final

from rbee.chaos.processes import adopt_orphans, heed_sigterm

# Secrets of a server, in the folder of its configuration.
CERTIFICATE: Final = "certificate.pem"
TLS_KEY: Final = "key.pem"
AUDIT_SECRET: Final = "audit-secret"  # noqa: S105  # a name

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


def make_secrets(folder: Path) -> None:
    """A certificate for 127.0.0.1 with its key, and a secret that seals the audit log."""
    make_certificate(folder / CERTIFICATE, folder / TLS_KEY)
    write_secret(folder / AUDIT_SECRET, secrets.token_urlsafe(32).encode())


def make_certificate(certificate: Path, key: Path) -> None:
    """Raises: OSError, subprocess.CalledProcessError: the openssl command does not make one."""
    subprocess.run(  # noqa: S603  # no word of it is anybody else's
        [  # noqa: S607  # whichever openssl the drill finds
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "30", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)


def write_secret(path: Path, secret: bytes) -> None:
    """Write a file that is closed to others from its begin."""
    path.touch(0o600)
    path.write_bytes(secret)


def trusting(folder: Path) -> ssl.SSLContext:
    """For clients of a server whose certificate was made there."""
    return ssl.create_default_context(cafile=str(folder / CERTIFICATE))


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
