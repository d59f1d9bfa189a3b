"""Who listens on a port of this machine: a key is shown to nobody who could not read its file."""

from pathlib import Path
from typing import Final

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS: Final = "0A"  # the state of a listening socket, in the kernel's tables
_TABLE_BYTES_MAX: Final = 16 * 1024 * 1024


def listener_uids(port: int) -> set[int]:
    """The users whose programs listen on a port, on whatever address. Empty: nobody can tell.

    Source: proc_pid_net(5), /proc/net/tcp: local address, state and uid are the 2nd, 4th and 8th.
    """
    uids: set[int] = set()
    for table in _TABLES:
        try:
            with table.open(encoding="ascii") as file:
                rows = file.read(_TABLE_BYTES_MAX).splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            is_listening = len(fields) > 7 and fields[3] == _LISTENS
            if is_listening and int(fields[1].rpartition(":")[2], 16) == port:
                uids.add(int(fields[7]))
    return uids
