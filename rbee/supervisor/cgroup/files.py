"""Reading and writing the kernel's cgroup files."""

import contextlib
import os
from pathlib import Path


def read(file: Path) -> str:
    """The file's text; "" where it is gone, or not ours to read."""
    try:
        return file.read_text("ascii", "replace")
    except OSError:
        return ""


def write(file: Path, text: str) -> None:
    """One write, without creating or truncating: what kernel files expect.

    Raises:
      OSError: the kernel's refusal.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def pids_in(folder: Path) -> list[int]:
    """The processes of one group, without those of the groups below it."""
    return [int(pid) for pid in read(folder / "cgroup.procs").split()]


def folders_from(path: Path) -> list[Path]:
    """A group's folder, and those of the groups below it; deeper ones later."""
    found = [path] if path.is_dir() else []
    for folder in found:
        with contextlib.suppress(FileNotFoundError):
            found.extend(entry for entry in folder.iterdir() if entry.is_dir())
    return found
