"""Addresses: where a server listens, and the URL at which it is reached from here."""

import urllib.parse
from pathlib import Path
from typing import Final

from rbee.cli.endings import UsageError

CONFIG_FILE: Final = Path("rbee.toml")
DEFAULT_URL: Final = "http://127.0.0.1:7233"

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)


def url_of_bind(bind: str, *, is_tls: bool = False) -> str:
    """Where a server that listens at ``bind`` is reached from this machine.

    Raises:
      ConfigError: it is not of the form HOST:PORT.
    """
    from rbee.supervisor.bind import Bind, parse_bind

    listens = parse_bind(bind)
    return Bind(_WILDCARDS.get(listens.host, listens.host), listens.port, is_tls).url


def server_url(url: str | None) -> str:
    """Which server a command talks to: ``--url``, else `rbee.toml`'s here, else the default.

    Raises:
      UsageError: the URL is none.
      ConfigError: the file is there and cannot be used.
    """
    if url is not None:
        return _checked_url(url)
    if not CONFIG_FILE.exists():
        return DEFAULT_URL
    from rbee.config import load_config

    config = load_config(CONFIG_FILE)
    return url_of_bind(config.server.bind, is_tls=config.tls.is_on)


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
