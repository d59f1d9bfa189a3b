"""The user that workers become: ``[worker] user``, looked up once, at the start.

Rule: where one is named, every worker becomes it, or the server does not start.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.errors import ConfigError

# They travel in one small document to each worker.
GROUPS_MAX: Final = 64
HOME_BYTES_MAX: Final = 256

# Source: linux/capability.h. The last two are for looking at a worker's processes in /proc.
NEEDED: Final = {
    "CAP_SETUID": 7, "CAP_SETGID": 6, "CAP_KILL": 5, "CAP_SYS_PTRACE": 19, "CAP_DAC_OVERRIDE": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerUser:
    """A user of this machine, other than root."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def find_user(named: str) -> WorkerUser | None:
    """The user of that name or uid. None: nobody is named.

    Raises:
      ConfigError: there is no such user, or workers may not become it.
    """
    if not named:
        return None
    is_uid = named.isascii() and named.isdecimal()
    try:
        entry = pwd.getpwuid(int(named)) if is_uid else pwd.getpwnam(named)
    except KeyError:
        raise ConfigError(f"worker.user: there is no user {named!r} on this machine") from None
    if entry.pw_uid == 0:
        raise ConfigError(f"worker.user must be another than root, found {named!r}")
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
    if len(groups) > GROUPS_MAX or len(os.fsencode(entry.pw_dir)) > HOME_BYTES_MAX:
        raise ConfigError(
            f"worker.user: {named!r} may be in {GROUPS_MAX} groups at most, with a home folder of"
            f" at most {HOME_BYTES_MAX} bytes"
        )
    return WorkerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def user_to_become(named: str) -> WorkerUser | None:
    """As `find_user`, for a supervisor that is about to start workers.

    Raises:
      ConfigError: as of `find_user`; or this process may not have its workers become it.
    """
    user = find_user(named)
    if user is not None and (problem := rights_problem()):
        raise ConfigError(
            f"worker.user = {named!r}: {problem}; start rbee serve as root, or name no such user"
        )
    return user


def rights_problem() -> str:
    """Why this process could not have workers of another user, and watch them; "" if it can."""
    if os.geteuid() != 0:
        return f"only root may do that, and this is uid {os.geteuid()}"
    status = Path("/proc/self/status").read_text("utf-8", "replace")
    effective = int(status.partition("\nCapEff:")[2].split(maxsplit=1)[0], 16)
    missing = [name for name, bit in NEEDED.items() if not effective >> bit & 1]
    return f"root lacks {', '.join(missing)} here" if missing else ""
