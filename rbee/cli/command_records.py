"""What a command does to keys and JWTs, recorded exactly once: by the server that does so, or here.

Rule 1: whoever holds the audit log's `Office` records. A server holds it for its life; where none
        does, the command takes it for the time of its deed.
Rule 2: here it is recorded before it is done; a server sees what was done, and the command waits
        until the log shows it. Only then a key is shown.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from rbee.cli.terminal import say

if TYPE_CHECKING:
    from rbee.audit.events import JwtRevoked, KeyCreated, KeyRevoked
    from rbee.audit.lock import Office
    from rbee.audit.place import Place
    from rbee.audit.reading import Mark
    from rbee.config import AuditConfig

    Deed = KeyCreated | KeyRevoked | JwtRevoked
    Deeds = Sequence[Deed]

# A server looks at the store four times a second, and writes within milliseconds.
SERVER_TIMEOUT_S: Final = 5.0
LOOK_EVERY_S: Final = 0.05


class Records(Protocol):
    """Where deeds are recorded."""

    def do(
        self, deeds: "Deeds", act: Callable[[], object], undo: Callable[[], object] | None = None
    ) -> None:
        """Do something, recorded.

        Args:
          deeds: all that ``act`` does; no other command does the same at the same time.
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
        self,
        deeds: "Deeds",  # noqa: ARG002  # nobody hears of them
        act: Callable[[], object],
        undo: Callable[[], object] | None = None,  # noqa: ARG002
    ) -> None:
        act()


class _Records:
    def __init__(self, config: "AuditConfig", place: "Place", office: "Office") -> None:
        self._config = config
        self._place = place
        self._office = office
        self._has_office = False
        self._told = ""  # what was said last

    def do(
        self, deeds: "Deeds", act: Callable[[], object], undo: Callable[[], object] | None = None
    ) -> None:
        mark = _end(self._place)
        if self._takes_office(deeds):
            self._record(deeds)
            act()
            return
        act()
        try:
            self._await_server(deeds, mark)
        except BaseException:
            if undo is not None:
                undo()
            raise

    def _takes_office(self, deeds: "Deeds") -> bool:
        """Whether it is for us to record."""
        if not self._has_office:
            try:
                self._has_office = self._office.take()
            except OSError as error:
                self._fail(deeds, error.strerror or str(error))
                return True  # with "open": there is no log that anybody could write
        return self._has_office

    def _record(self, deeds: "Deeds") -> None:
        """Have them on the disk."""
        from rbee.audit.chain import Note
        from rbee.audit.events import Outcome
        from rbee.audit.opening import seal_key
        from rbee.audit.trail import Trail
        from rbee.errors import ConfigError
        from rbee.secret_files import secret_path

        actor = f"operator:{os.geteuid()}"
        now_ns = time.time_ns()
        secret_file = self._config.secret_file
        try:
            key = seal_key(secret_path(secret_file)) if secret_file else None
            trail = Trail(self._place, self._config, key, may_take_over=False)
            with contextlib.closing(trail):
                trail.append([Note(deed, actor, Outcome.SUCCESS, None, now_ns) for deed in deeds])
                trail.sync()
                trail.anchor()
                trail.tell_witness()
        except ConfigError as error:
            self._fail(deeds, str(error))
        except OSError as error:
            self._fail(deeds, error.strerror or str(error))

    def _await_server(self, deeds: "Deeds", mark: "Mark") -> None:
        until_s = time.monotonic() + SERVER_TIMEOUT_S
        while True:
            is_ours = self._takes_office(deeds)  # it has ended; what it recorded is written
            missing = _missing(self._place, deeds, mark)
            if not missing:
                return
            if is_ours:
                self._record(missing)
                return
            if time.monotonic() > until_s:
                self._fail(missing, f"the server has not done so within {SERVER_TIMEOUT_S} s")
                return
            time.sleep(LOOK_EVERY_S)

    def _fail(self, deeds: "Deeds", problem: str) -> None:
        from rbee.errors import AuditError

        names = ", ".join(deed.event.value for deed in deeds)
        told = f"{names} is not in the audit log {self._place.folder}: {problem}"
        if self._config.on_failure == "closed":
            raise AuditError(told)
        if told != self._told:  # neither for the office nor for the entry
            self._told = told
            say(told)


def _end(place: "Place") -> "Mark":
    from rbee.audit.reading import Mark, open_log
    from rbee.errors import AuditError

    try:
        with open_log(place) as log:
            return log.end
    except AuditError:  # there is none yet, or nobody can read it
        return Mark("", 0)


def _missing(place: "Place", deeds: "Deeds", mark: "Mark") -> "Deeds":
    """Those of which the log does not tell, behind a mark."""
    from rbee.audit.chain import read_line
    from rbee.audit.reading import lines_since, open_log
    from rbee.errors import AuditError

    try:
        with open_log(place) as log:
            found = [read_line(raw[:-1]) for raw in lines_since(log, mark)]
    except AuditError:
        return deeds
    told = [(line.entry.event, bytes(line.entry.details)) for line in found if line is not None]
    return [deed for deed in deeds if not any(_tells_of(deed, *each) for each in told)]


def _tells_of(deed: "Deed", event: str, details: bytes) -> bool:
    """Whether an entry is of that kind, and of the same key or JWT."""
    from msgspec.json import encode

    from rbee.audit.events import JwtRevoked

    names = ("issuer", "jti") if isinstance(deed, JwtRevoked) else ("key",)
    return event == deed.event and all(
        # No text holds it by chance: in a text a quotation mark is escaped.
        b'"%s":%s' % (name.encode(), encode(getattr(deed, name))) in details
        for name in names
    )
