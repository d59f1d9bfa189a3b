"""What a process gives up when it begins, so that others get nothing out of it.

Rule: only what Linux lets every process do for itself, and what no part of rbee needs afterwards.
"""

import ctypes
import os
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

# linux/landlock.h; its system calls have the same numbers on x86-64, arm64 and whatever is newer.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION_ASKED: Final = 1
_LANDLOCK_BIND_AND_CONNECT_TCP: Final = 0b11
_LANDLOCK_SCOPE_SIGNAL: Final = 0b10
_LANDLOCK_WITH_TCP: Final = 4  # versions of the interface: landlock(7)
_LANDLOCK_WITH_SIGNALS: Final = 6


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


def die_with_parent() -> str:
    """Be killed when the thread that has started this process ends. A change of user undoes it.

    Returns:
      Why that could not be had; "" if it holds.
    """
    return _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forbid_core_files() -> str:
    """Leave no core file, and be unable to change one's mind. What is started inherits it.

    Returns:
      Why that could not be had; "" if it holds.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:  # a filter of system calls; lowering needs no right
        return str(error)
    return ""


def forbid_looking_inside() -> str:
    """Let no other process of this user read our memory, environment or descriptors, or trace us,
    and leave no core dump to anybody. Root still may. What is started does not inherit it.

    Returns:
      Why that could not be had; "" if it holds.
    """
    return _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_rights() -> str:
    """Take no rights from setuid files. What is started inherits it.

    Returns:
      Why that could not be had; "" if it holds.
    """
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def landlock_problem() -> str:
    """Why `forbid_reaching_others` would not hold here, or not all of it; "" if it would."""
    asked = ctypes.c_uint32(_LANDLOCK_VERSION_ASKED)
    try:
        version = _syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), asked)
    except OSError as error:  # none in this kernel, or switched off
        return f"no Landlock: {error.strerror}"
    if version < _LANDLOCK_WITH_TCP:
        return f"Landlock {version} does not know TCP"
    return "" if version >= _LANDLOCK_WITH_SIGNALS else f"Landlock {version} does not know signals"


def forbid_reaching_others() -> str:
    """Neither bind nor connect a TCP socket; trace no process, and send signals to none, but those
    that are started from now on. What is started inherits it; threads that are there already do
    not. To be called after `forbid_new_rights`.

    Landlock looks at bind(2) and connect(2) of plain TCP alone: MPTCP, TCP Fast Open and listening
    without a bind, on whatever port the kernel gives, go past it (seen on 6.18).

    Returns:
      Why that could not be had, or not all of it; "" if it holds.
    """
    problem = landlock_problem()
    scoped = 0 if problem else _LANDLOCK_SCOPE_SIGNAL
    ruleset = _Ruleset(0, _LANDLOCK_BIND_AND_CONNECT_TCP, scoped)
    # An older kernel takes a longer structure where all that it does not know is zero.
    size, flags = ctypes.c_size_t(ctypes.sizeof(ruleset)), ctypes.c_uint32(0)
    try:
        rules = _syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), size, flags)
        try:
            _syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(rules), flags)
        finally:
            os.close(rules)
    except OSError as error:
        return problem or str(error.strerror)
    return problem


def _syscall(number: int, *arguments: object) -> int:
    """Raises: OSError: it failed."""
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int, value: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
