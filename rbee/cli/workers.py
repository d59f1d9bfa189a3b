"""``rbee workers``: the slots, and what may be done with each."""

from rbee.cli.address import server_url
from rbee.cli.options import Url
from rbee.cli.terminal import put


def list_workers(*, url: Url = None, json: bool = False) -> int:
    """Show the workers. The same table as `rbee status`, with the same exit codes.

    Args:
      json: Print JSON, for programs.
    """
    from rbee.cli.status import status

    return status(url=url, json=json)


def restart(slot: str, /, *, url: Url = None) -> int:
    """Drain the worker of a slot and start a new one; fill a failed or stopped slot again.

    Args:
      slot: As `rbee status` names it, such as bee-tiny-0.
    """
    _command(slot, "restart", server_url(url))
    put(f"{slot}: restart asked for; see `rbee status --watch`")
    return 0


def stop(slot: str, /, *, url: Url = None) -> int:
    """Drain and stop the worker of a slot; the slot stays empty until it is restarted.

    Args:
      slot: As `rbee status` names it, such as bee-tiny-0.
    """
    _command(slot, "stop", server_url(url))
    put(f"{slot}: stop asked for; `rbee workers restart {slot}` fills it again")
    return 0


def _command(slot: str, command: str, url: str) -> None:
    from rbee.cli.server import Server

    with Server(url) as server:
        server.command_worker(slot, command)
