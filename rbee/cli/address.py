"""Addresses: where a server listens, and the URL at which it is reached from here."""

import dataclasses
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rbee.cli.endings import UsageError
from rbee.cli.options import At

if TYPE_CHECKING:
    from rbee.config import Config
    from rbee.secret_files import Secret

CONFIG_FILE: Final = Path("rbee.toml")
ADMIN_KEY_FILE: Final = "admin.key"  # in the state folder: what `rbee init` makes
DEFAULT_URL: Final = "http://127.0.0.1:7233"

_PORTS: Final = {"http": 80, "https": 443}
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)


def url_of_bind(bind: str, *, is_tls: bool = False) -> str:
    """Where a server that listens at ``bind`` is reached from this machine.

    Raises:
      ConfigError: it is not of the form HOST:PORT.
    """
    from rbee.supervisor.bind import Bind, parse_bind

    listens = parse_bind(bind)
    return Bind(_WILDCARDS.get(listens.host, listens.host), listens.port, is_tls).url


def state_dir_of(config: "Config") -> Path:
    """Where a server with that configuration keeps what outlives it."""
    from rbee.supervisor.crashes import default_state_dir

    return Path(config.server.state_dir or default_state_dir()).absolute()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is reached, and how it proves to be the one."""

    url: str
    ca_file: Path | None = None  # whose certificates are trusted; None: those of this system
    own_certificate_file: Path | None = None  # only this one is, whatever name it is for
    key: "Secret | None" = None  # that is shown to it


def server_address(at: At) -> Address:
    """Which server a command talks to: ``--url``, else `rbee.toml`'s here, else the default.

    Raises:
      UsageError: the URL is none.
      ConfigError: the configuration, or the file of the key, is there and cannot be used.
    """
    address = _keyless_address(at)
    return dataclasses.replace(address, key=_key_for(address.url, at.key_file))


def _keyless_address(at: At) -> Address:
    if at.url is not None:
        return Address(_checked_url(at.url), at.ca_file)
    if not CONFIG_FILE.exists():
        return Address(DEFAULT_URL, at.ca_file)
    from rbee.config import load_config

    return address_of(load_config(CONFIG_FILE), at.ca_file)


def _key_for(url: str, key_file: Path | None) -> "Secret | None":
    """The key of that file; else what `rbee init` left, for a server on this machine alone.

    That one is shown to programs only of whoever could read it anyway: another user's may listen
    on the port while the server is away.
    """
    from rbee.cli.listener import listener_uids
    from rbee.config import Config, load_config
    from rbee.secret_files import read_secret_file
    from rbee.supervisor.bind import is_loopback

    if key_file is None:
        parts = urllib.parse.urlsplit(url)
        if not is_loopback(parts.hostname or ""):
            return None
        config = load_config(CONFIG_FILE) if CONFIG_FILE.exists() else Config()
        key_file = state_dir_of(config) / ADMIN_KEY_FILE
        if not os.access(key_file, os.R_OK):  # there is none, or it is another user's
            return None
        listeners = listener_uids(parts.port or _PORTS[parts.scheme])
        if not listeners or listeners - {0, key_file.stat().st_uid}:
            return None
    return read_secret_file(key_file)


def address_of(config: "Config", ca_file: Path | None = None) -> Address:
    """Where a server with that configuration is reached from this machine.

    Its certificate is for the name by which others know it: here it is known by itself.
    """
    from rbee.secret_files import CREDENTIAL_PREFIX

    url = url_of_bind(config.server.bind, is_tls=config.tls.is_on)
    own_file = config.tls.certificate_file
    if ca_file is not None or not own_file or own_file.startswith(CREDENTIAL_PREFIX):
        return Address(url, ca_file)  # credentials are there for the service alone
    return Address(url, own_certificate_file=Path(own_file))


def _checked_url(url: str) -> str:
    """The URL without a trailing slash or the ``/v1`` that OpenAI clients ask for."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_whole = False
    if not is_whole or not url.isprintable() or parts.query or parts.fragment:
        raise UsageError(f"--url must be like {DEFAULT_URL}, got {url!r}")
    return url.rstrip("/").removesuffix("/v1")
