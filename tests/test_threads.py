"""Threads that the system refuses are told as what else it refuses."""

import errno
import os
import subprocess
import sys

import pytest

from rbee.threads import thread_refusals

# In a process of its own, as the limit stays; of a user that has no right to exceed it.
STARTS_ONE_TOO_MANY = """
import os, resource, threading
from rbee.threads import thread_refusals
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
os.setuid(54321)
try:
    with thread_refusals():
        for _ in range(3):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
except OSError as error:
    os.write(1, str(error.errno).encode())
os._exit(0)
"""


def test_a_thread_that_the_system_refuses_is_an_os_error() -> None:

    if os.geteuid() != 0:
        pytest.skip("only root may become a user without processes")
    ended = subprocess.run(
        [sys.executable, "-c", STARTS_ONE_TOO_MANY], capture_output=True, timeout=30, check=True
    )
    assert ended.stdout == str(errno.EAGAIN).encode(), ended.stderr


def test_another_error_passes_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="something else"), thread_refusals():
        raise RuntimeError("something else")
