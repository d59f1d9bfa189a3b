"""``rbee workers``: the slots, and what may be done with each."""

from rbee.cli.address import Address, server_address
from rbee.cli.options import HERE, At
from rbee.cli.terminal import put


def list_workers(*, at: At = HERE, json: bool = False) -> int:
    """Show the workers. The same table as `rbee status`, with the same exit codes.

    Args:
      json: Print JSON, for programs.
    """
    from rbee.cli.status import status

    return status(at=at, json=json)


def restart(slot: str, /, *, at: At = HERE) -> int:
    """Drain the worker of a slot and start a new one; fill a failed or stopped slot again.

    Args:
      slot: As `rbee status` names it, such as bee-tiny-0.
    """
    _command(slot, "restart", server_address(at))
    put(f"{slot}: restart asked for; see `rbee status --watch`")
    return 0


def stop(slot: str, /, *, at: At = HERE) -> int:
    """Drain and stop the worker of a slot; the slot stays empty until it is restarted.

    Args:
      slot: As `rbee status` names it, such as bee-tiny-0.
    """
    _command(slot, "stop", server_address(at))
    put(f"{slot}: stop asked for; `rbee workers restart {slot}` fills it again")
    return 0


def reset(slot: str | None = None, /, *, at: At = HERE) -> int:
    """Forget the failures of a slot, and fill it now if it waits or has failed.

    Args:
      slot: As `rbee status` names it, such as bee-tiny-0; without it, every slot that has failures.
    """
    from rbee.cli.server import Server, worker_rows

    address = server_address(at)
    if slot is not None:
        _command(slot, "reset", address)
        put(f"{slot}: reset")
        return 0
    with Server(address) as server:
        failed = [row.slot for row in worker_rows(server.workers()) if row.failures]
        for each in failed:
            server.command_worker(each, "reset")
    put("\n".join(f"{each}: reset" for each in failed) or "no slot has failures")
    return 0


def _command(slot: str, command: str, address: Address) -> None:
    from rbee.cli.server import Server

    with Server(address) as server:
        server.command_worker(slot, command)
