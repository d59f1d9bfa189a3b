"""The store of the keys, as commands find it: a server need not run, and may."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.cli.address import state_dir_of

if TYPE_CHECKING:
    from rbee.config import Config
    from rbee.supervisor.bind import Bind


def state_dir_for(config: Path | None, state_dir: Path | None) -> Path:
    """The folder that a command was given; else as the configuration has it.

    Raises:
      ConfigError: the configuration cannot be used.
    """
    from rbee.cli.effective_config import configuration

    return state_dir.absolute() if state_dir is not None else state_dir_of(configuration(config))


def count_keys(config: "Config") -> tuple[int, int]:
    """How many keys a server with that configuration would know, and how many are good.

    Raises:
      StoreError: there is a store, and it cannot be read.
    """
    from rbee.store import FILE_NAME, open_store
    from rbee.supervisor.access.minting import is_good

    store = open_store(state_dir_of(config) / FILE_NAME, create=False)
    if store is None:
        return 0, 0
    with store:
        rows, now_s = store.keys.all(), int(time.time())
    return len(rows), sum(is_good(row, now_s) for row in rows)


def check_address(config: "Config") -> "Bind":
    """Where a server with that configuration would listen.

    Raises:
      ConfigError: it would refuse to.
      StoreError: there is a store of keys, and it cannot be read.
    """
    from rbee.supervisor.bind import check_bind, is_loopback, parse_bind

    bind = parse_bind(config.server.bind)
    check_bind(
        bind,
        has_credentials=(
            is_loopback(bind.host) or bool(config.jwt.issuer) or count_keys(config)[1] > 0
        ),
        has_tls=config.tls.is_on,
        allow_plaintext=config.server.allow_plaintext,
    )
    return bind
