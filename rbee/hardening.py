"""What a process gives up when it begins, so that others get nothing out of it.

Rule: only what Linux lets every process do for itself, and what no part of rbee needs afterwards.
"""

import ctypes
import os
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS: Final = 38


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


def _prctl(option: int, value: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
