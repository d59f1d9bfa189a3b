"""Servers that several scenarios of one process use one after the other: none of them breaks it."""

import tempfile
from pathlib import Path

from tests.e2e.server import Server, synthetic_config

_shared: dict[str, tuple[Server, "tempfile.TemporaryDirectory[str]"]] = {}


def shared_server(head: str = "", model: str = "") -> Server:
    """The running server of that configuration."""
    key = head + model
    if key in _shared and _shared[key][0].process.poll() is None:
        return _shared[key][0]
    folder = tempfile.TemporaryDirectory(prefix="rbee-spec-")
    server = Server(Path(folder.name), synthetic_config(head=head, model=model))
    _shared[key] = (server, folder)
    return server.ready()


def close_shared() -> None:
    """At the end of the tests of a process."""
    while _shared:
        _, (server, folder) = _shared.popitem()
        server.close()
        folder.cleanup()
