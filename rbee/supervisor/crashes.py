"""The crash reports: the last ones, in memory and as files that outlive the supervisor.

Rule 1: bounded in number and size; the oldest go first.
Rule 2: a disk that is full, slow or read-only costs the files, never a worker or a report that
        is asked for: those come from memory. `write` is for a thread of its own.
Rule 3: their order is that of the files' times of modification, of which each is later than all
        before it, whatever the clock says: one that goes back costs no report its place.
Rule 4: the files are ours alone (0600, in a folder with 0700): they show what workers printed.
"""

import contextlib
import os
import re
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec

from rbee.logs import Log
from rbee.supervisor.views import CrashView

CRASHES_MAX: Final = 20
CRASH_BYTES_MAX: Final = 256 * 1024

FOLDER: Final = "crashes"
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[a-z0-9-]{1,64}-[0-9]{1,10}")
_MTIME_STEP_NS: Final = 1_000_000_000  # some file systems keep whole seconds only
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def default_state_dir() -> Path:
    """Where what is to outlive a restart lies: systemd's, the user's, or the system's folder."""
    from_systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if from_systemd:
        return Path(from_systemd)
    if state_home := os.environ.get("XDG_STATE_HOME"):
        return Path(state_home) / "rbee"
    if os.geteuid() == 0:
        return Path("/var/lib/rbee")
    return Path.home() / ".local" / "state" / "rbee"


class Crashes:
    """The last reports, by id; the newest last."""

    def __init__(self, state_dir: Path, log: Log) -> None:
        self.folder: Final = state_dir / FOLDER
        self._log = log
        self._reports: OrderedDict[str, tuple[CrashView, bytes]] = OrderedDict()

    def load(self) -> None:
        """Take up what earlier supervisors left. What is no report is left alone."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            names = [name for _, name in self._files()]
        except OSError as error:
            self._log.warning(
                "crash_reports_not_kept", folder=str(self.folder), problem=error.strerror,
                remedy="give rbee a folder that it may write: [server] state_dir",
            )  # fmt: skip
            return
        for name in names[-CRASHES_MAX:]:
            if (raw := self._read(name)) is not None:
                self._take(raw)

    def newest_first(self) -> list[CrashView]:
        return [view for view, _ in reversed(self._reports.values())]

    def report(self, crash_id: str) -> bytes | None:
        """The JSON text of one report."""
        found = self._reports.get(crash_id)
        return None if found is None else found[1]

    def add(self, document: bytes) -> CrashView:
        """Keep a report in memory; the oldest makes room."""
        assert len(document) <= CRASH_BYTES_MAX, len(document)
        view = self._take(document)
        assert view is not None, "a report of our own that cannot be read"
        assert _NAME.fullmatch(view.id), view.id
        while len(self._reports) > CRASHES_MAX:
            self._reports.popitem(last=False)
        return view

    def write(self, crash_id: str) -> None:
        """Write one report to its file, whole or not at all, and drop the oldest files.

        Raises:
          OSError: it could not be written.
        """
        document = self.report(crash_id)
        if document is None:
            return
        path = self.folder / f"{crash_id}.json"
        draft = path.with_suffix(".part")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = [file for file in self._files() if file[1] != crash_id]
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
                file.write(document)
            if others:
                _date_after(others[-1][0], draft)
            draft.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        for _, name in others[: -(CRASHES_MAX - 1)]:
            with contextlib.suppress(OSError):  # another supervisor did it, or it is no file
                (self.folder / f"{name}.json").unlink()

    def _files(self) -> list[tuple[int, str]]:
        """When each report was written, in ns, and its name; the oldest first.

        Raises:
          OSError: the folder cannot be read.
        """
        found: list[tuple[int, str]] = []
        for entry in self.folder.glob("*.json"):
            if _NAME.fullmatch(entry.stem):
                with contextlib.suppress(FileNotFoundError):  # another supervisor's, gone meanwhile
                    found.append((entry.lstat().st_mtime_ns, entry.stem))
        return sorted(found)

    def _take(self, document: bytes) -> CrashView | None:
        try:
            view = msgspec.json.decode(document, type=CrashView)
        except msgspec.MsgspecError:
            return None
        self._reports[view.id] = (view, document)
        return view

    def _read(self, name: str) -> bytes | None:
        try:
            descriptor = os.open(self.folder / f"{name}.json", _OPEN_FLAGS)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            raw = os.read(descriptor, CRASH_BYTES_MAX + 1)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return raw if len(raw) <= CRASH_BYTES_MAX else None


def _date_after(before_ns: int, file: Path) -> None:
    """See that a file counts as written after another one, though the clock may say otherwise."""
    if file.stat().st_mtime_ns <= before_ns:
        later_ns = before_ns + _MTIME_STEP_NS
        os.utime(file, ns=(later_ns, later_ns))
