"""Opens the audit log as it is configured."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rbee.audit.audit import NO_AUDIT, Audit
from rbee.audit.chain import SEAL_PURPOSE
from rbee.audit.lock import OFFICE_TIMEOUT_S, Office
from rbee.audit.place import Place
from rbee.audit.trail import Trail
from rbee.audit.writer import AuditWriter
from rbee.config import AuditConfig
from rbee.logs import Log
from rbee.secret_files import derive_key, read_secret_file, secret_path


class SealSecret:
    """The secret that seals, read again when asked. Its one writer is `prepare`'s outcome."""

    def __init__(self, secret_file: str, key: bytes, writer: AuditWriter) -> None:
        self._secret_file = secret_file
        self._key = key
        self._writer = writer

    def prepare(self) -> tuple[str, Callable[[], None]] | None:
        """Read it again. Changes nothing yet.

        Returns:
          What changed, and what puts it into force; None: nothing has changed.

        Raises:
          ConfigError: its file is not as it must be.
        """
        key = seal_key(secret_path(self._secret_file))
        if key == self._key:
            return None
        self._writer.offer(key)
        return "audit.secret_file", functools.partial(self._replace, key)

    def _replace(self, key: bytes) -> None:
        self._key = key
        self._writer.rekey(key)


@dataclass(frozen=True, slots=True)
class OpenAudit:
    """The audit log of a server."""

    audit: Audit
    secret: SealSecret | None = None
    records_commands: bool = True  # else another server does, or each command itself


@contextlib.contextmanager
def open_audit(config: AuditConfig, place: Place, log: Log) -> Iterator[OpenAudit]:
    """The audit log, until the end of the block: then all that waits is written.

    A folder that cannot be written is no error here: it is logged, shown by `Audit.state`, and
    tried again.

    Raises:
      ConfigError: it is to be sealed, and there is no secret to seal it with.
    """
    if not config.enabled:
        log.warning("audit_off", remedy="[audit] enabled = true")
        yield OpenAudit(NO_AUDIT)
        return
    key = seal_key(secret_path(config.secret_file)) if config.secret_file else None
    with contextlib.closing(Office(place.folder)) as office:
        has_office = False
        with contextlib.suppress(OSError):  # no folder: each command finds out for itself
            has_office = office.take(OFFICE_TIMEOUT_S)
        writer = AuditWriter(Trail(place, config, key), config, log)
        secret = None if key is None else SealSecret(config.secret_file, key, writer)
        try:
            yield OpenAudit(writer, secret, has_office)
        finally:
            is_whole, state = writer.close(), writer.state
            if is_whole:
                log.info("audit_closed", seq=state.seq, hash=state.hash)
            else:
                log.error("audit_incomplete", reason=state.reason, waiting=state.waiting)


def seal_key(secret_file: Path) -> bytes:
    """The key that seals.

    Raises:
      ConfigError: the file of the secret is not as it must be.
    """
    secret = read_secret_file(secret_file)
    try:
        return derive_key(secret, SEAL_PURPOSE)
    finally:
        secret.wipe()
