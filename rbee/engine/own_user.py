"""How a worker becomes another user, for good, before it reads anything of a model.

Rule: what cannot be given up wholly ends the worker. It never goes on with more than it should.
"""

import errno
import os
from pathlib import Path
from typing import Final

import msgspec

from rbee.errors import EngineError, ExitCode
from rbee.hardening import die_with_parent, forbid_looking_inside

_TASKS: Final = Path("/proc/self/task")


class OwnUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The user, as the supervisor has looked it up."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # all of them; a GPU's files are often open to one of these alone
    home: str


def become(user: OwnUser) -> None:
    """Be that user, with all threads, and no way back.

    Raises:
      EngineError: CONFIG; the system refuses, or leaves us more than that user has; or that user
        cannot read Python and rbee, which would fail later, here and there, as they are imported.
    """
    parent_pid = os.getppid()
    try:
        os.setgroups(user.groups)  # the C library does each of these for all threads, libzmq's too
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise EngineError(
            f"the worker cannot become user {user.name}: {error.strerror}", ExitCode.CONFIG
        ) from error
    if left := _left_over(user):
        message = f"the worker did not wholly become user {user.name}: {left}"
        raise EngineError(message, ExitCode.CONFIG)
    for path in (os.__file__, __file__):
        if not os.access(path, os.R_OK):
            message = f"user {user.name} cannot read {path}: install Python and rbee where it can"
            raise EngineError(message, ExitCode.CONFIG)
    forbid_looking_inside()  # other workers are of this user, too
    die_with_parent()
    if os.getppid() != parent_pid:  # it has died in between
        os._exit(ExitCode.ORPHANED)
    os.environ["HOME"] = user.home


def why_unreadable(error: OSError) -> str:
    """Why a file cannot be read, with the user for whom that is so."""
    whom = f" for uid {os.geteuid()}" if error.errno in (errno.EACCES, errno.EPERM) else ""
    return f"{error.strerror}{whom}"


def _left_over(user: OwnUser) -> str:
    """What some thread has beside what is the user's; "" if nothing. Source: proc(5)."""
    wanted = {
        "Uid": [str(user.uid)] * 4,
        "Gid": [str(user.gid)] * 4,
        "CapPrm": ["0" * 16],  # what is not permitted cannot be effective or ambient either
    }
    groups = {str(each) for each in user.groups}
    for task in _TASKS.iterdir():
        status = task.joinpath("status").read_text("utf-8", "replace").splitlines()
        found = {key: value.split() for key, _, value in (each.partition(":") for each in status)}
        for key, value in wanted.items():
            if found[key] != value:
                return f"{key} is {' '.join(found[key])}"
        if set(found["Groups"]) != groups:
            return f"Groups is {' '.join(found['Groups'])}"
    return ""
