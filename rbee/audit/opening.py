"""Opens the audit log as it is configured."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rbee.audit.audit import NO_AUDIT, Audit
from rbee.audit.chain import SEAL_PURPOSE
from rbee.audit.place import Place
from rbee.audit.trail import Trail
from rbee.audit.writer import AuditWriter
from rbee.config import AuditConfig
from rbee.logs import Log
from rbee.secret_files import derive_key, read_secret_file, secret_path


@contextlib.contextmanager
def open_audit(config: AuditConfig, place: Place, log: Log) -> Iterator[Audit]:
    """The audit log, until the end of the block: then all that waits is written.

    A folder that cannot be written is no error here: it is logged, shown by `Audit.state`, and
    tried again.

    Raises:
      ConfigError: it is to be sealed, and there is no secret to seal it with.
    """
    if not config.enabled:
        log.warning("audit_off", remedy="[audit] enabled = true")
        yield NO_AUDIT
        return
    key = seal_key(secret_path(config.secret_file)) if config.secret_file else None
    writer = AuditWriter(Trail(place, config, key), config, log)
    try:
        yield writer
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
