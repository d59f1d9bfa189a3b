"""What a command does to keys, recorded exactly once: by the server that does so, or here.

Rule 1: whoever holds the audit log's `Office` records. A server holds it for its life; where none
        does, the command takes it for the time of its deed.
Rule 2: here it is recorded before it is done; a server sees what was done, and the command waits
        until the log shows it. Only then a key is shown.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from rbee.cli.terminal import say

if TYPE_CHECKING:
    from rbee.audit.events import Details, KeyCreated, KeyRevoked
    from rbee.audit.lock import Office
    from rbee.audit.place import Place
    from rbee.audit.reading import Mark
    from rbee.config import AuditConfig

# A server looks at the store four times a second, and writes within milliseconds.
SERVER_TIMEOUT_S: Final = 5.0
LOOK_EVERY_S: Final = 0.05


class Records(Protocol):
    """Where deeds are recorded."""

    def do(
        self, details: "KeyCreated | KeyRevoked", act: Callable[[], object],
        undo: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        """Do something, recorded.

        Args:
          undo: takes it back, where it turns out that it is not recorded.

        Raises:
          AuditError: it is not recorded, and `[audit] on_failure` is "closed".
        """
        ...


@contextlib.contextmanager
def records_of(config: "AuditConfig", state_dir: Path) -> Iterator[Records]:
    """Where to record, until the end of the block."""
    from rbee.audit.lock import Office
    from rbee.audit.place import place_in

    if not config.enabled:
        yield _NoRecords()
        return
    place = place_in(state_dir)
    with contextlib.closing(Office(place.folder)) as office:
        yield _Records(config, place, office)


class _NoRecords:
    def do(
        self, details: "Details", act: Callable[[], object],  # noqa: ARG002  # nobody hears of it
        undo: Callable[[], object] | None = None,  # noqa: ARG002
    ) -> None:  # fmt: skip
        act()


class _Records:
    def __init__(self, config: "AuditConfig", place: "Place", office: "Office") -> None:
        self._config = config
        self._place = place
        self._office = office
        self._has_office = False

    def do(
        self, details: "KeyCreated | KeyRevoked", act: Callable[[], object],
        undo: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        mark = _end(self._place)
        if self._takes_office(details):
            self._record(details)
            act()
            return
        act()
        try:
            self._await_server(details, mark)
        except BaseException:
            if undo is not None:
                undo()
            raise

    def _takes_office(self, details: "Details") -> bool:
        """Whether it is for us to record."""
        if not self._has_office:
            try:
                self._has_office = self._office.take()
            except OSError as error:
                self._fail(details, error.strerror or str(error))
                return True  # with "open": there is no log that anybody could write
        return self._has_office

    def _record(self, details: "Details") -> None:
        """Have it on the disk."""
        from rbee.audit.chain import Note
        from rbee.audit.events import Outcome
        from rbee.audit.opening import seal_key
        from rbee.audit.trail import Trail
        from rbee.errors import ConfigError
        from rbee.secret_files import secret_path

        actor = f"operator:{os.geteuid()}"
        note = Note(details, actor, Outcome.SUCCESS, None, time.time_ns())
        secret_file = self._config.secret_file
        try:
            key = seal_key(secret_path(secret_file)) if secret_file else None
            trail = Trail(self._place, self._config, key, may_take_over=False)
            with contextlib.closing(trail):
                trail.append([note])
                trail.sync()
                trail.anchor()
                trail.tell_witness()
        except ConfigError as error:
            self._fail(details, str(error))
        except OSError as error:
            self._fail(details, error.strerror or str(error))

    def _await_server(self, details: "KeyCreated | KeyRevoked", mark: "Mark") -> None:
        until_s = time.monotonic() + SERVER_TIMEOUT_S
        while True:
            is_ours = self._takes_office(details)  # it has ended; what it recorded is written
            if _is_there(self._place, details, mark):
                return
            if is_ours:
                self._record(details)
                return
            if time.monotonic() > until_s:
                self._fail(details, f"the server has not done so within {SERVER_TIMEOUT_S} s")
                return
            time.sleep(LOOK_EVERY_S)

    def _fail(self, details: "Details", problem: str) -> None:
        from rbee.errors import AuditError

        told = f"{details.event.value} is not in the audit log {self._place.folder}: {problem}"
        if self._config.on_failure == "closed":
            raise AuditError(told)
        say(told)


def _end(place: "Place") -> "Mark":
    from rbee.audit.reading import Mark, open_log
    from rbee.errors import AuditError

    try:
        with open_log(place) as log:
            return log.end
    except AuditError:  # there is none yet, or nobody can read it
        return Mark("", 0)


def _is_there(place: "Place", details: "KeyCreated | KeyRevoked", mark: "Mark") -> bool:
    """Whether the log tells of it, behind a mark."""
    from rbee.audit.chain import read_line
    from rbee.audit.reading import lines_since, open_log
    from rbee.errors import AuditError

    key = f'"key":"{details.key}"'.encode()
    try:
        with open_log(place) as log:
            found = [read_line(raw[:-1]) for raw in lines_since(log, mark)]
    except AuditError:
        return False
    return any(
        line is not None and line.entry.event == details.event and key in bytes(line.entry.details)
        for line in found
    )
