"""Puts together all that has to do with who may come in, and keeps it running beside the faces."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from rbee.audit import NO_AUDIT, Audit, OpenAudit
from rbee.config import AccessConfig
from rbee.jwt_config import JwtConfig
from rbee.logs import Log
from rbee.store import FILE_NAME
from rbee.supervisor.access.access import Access
from rbee.supervisor.access.keeper import Keeper, warn_of_no_keys
from rbee.supervisor.access.keyring import Keyring
from rbee.supervisor.access.throttle import ThrottleLimits
from rbee.supervisor.access.verifier import Verifier

if TYPE_CHECKING:
    from rbee.supervisor.access.jwt.jwts import Jwts

# How often it is looked for those who lost the right to what they run. With the looks at the
# store this keeps a revoked key's streams below a second.
SWEEP_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may come in, and the keys with which they do."""

    access: Access
    keeper: Keeper
    verifier: Verifier
    jwts: "Jwts | None" = None

    @property
    def has_credentials(self) -> bool:
        """Whether anybody can come in with what is there now."""
        return self.jwts is not None or self.access.keyring.has_usable_keys(time.time())

    async def tend(self, end_lapsed: Callable[[], None]) -> None:
        """Verify, look at the store and at the clock, until cancelled.

        Args:
          end_lapsed: ends what runs for those who are not let in any more.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.verifier.run)
            nursery.start_soon(self.keeper.run)
            if self.jwts is not None:
                nursery.start_soon(self.jwts.run)
            while True:
                await trio.sleep(SWEEP_EVERY_S)
                self.access.tell_counted()
                if not self.access.is_open:
                    end_lapsed()


@contextlib.contextmanager
def open_gate(
    config: AccessConfig, jwt: JwtConfig, state_dir: Path, log: Log, opened: OpenAudit
) -> Iterator[Gate]:
    """The gate, until the end of the block.

    A store that cannot be used is no error here: it is logged, and tried again.

    Raises:
      ConfigError: the issuer's keys cannot be read from their file, or a library is not there.
    """
    store, audit = state_dir / FILE_NAME, opened.audit
    keyring = Keyring(is_required=config.required or bool(jwt.issuer))
    heard = audit if opened.records_commands else NO_AUDIT
    keeper, verifier = Keeper(store, keyring, log, heard), Verifier()
    jwts = _make_jwts(jwt, store, log, heard) if jwt.issuer else None
    access = Access(
        keyring, verifier, clock=trio.current_time, unix_clock=time.time, audit=audit, jwts=jwts,
        throttle_limits=ThrottleLimits.of(config),
    )  # fmt: skip
    keeper.open()
    if access.is_open:
        warn_of_no_keys(log)
    try:
        if jwts is not None:
            jwts.open()
        yield Gate(access, keeper, verifier, jwts)
    finally:
        if jwts is not None:
            jwts.close()
        keeper.close()


def _make_jwts(config: JwtConfig, store: Path, log: Log, audit: Audit) -> "Jwts":
    # Its libraries take 20 MB and 0.2 s, which a server without JWTs need not pay.
    from rbee.supervisor.access.jwt.jwts import Jwts  # noqa: PLC0415

    return Jwts(config, store, log, audit)
