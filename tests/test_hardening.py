"""What a process gives up: held by the kernel, and seen from outside."""

import subprocess
import sys

CHILD = """
import resource
from rbee import hardening
print(repr(hardening.forbid_looking_inside()), repr(hardening.forbid_new_rights()))
assert hardening.forbid_core_files() == ''
print(resource.getrlimit(resource.RLIMIT_CORE))
lines = open("/proc/self/status").read().splitlines()
print([line.split()[1] for line in lines if line.startswith("NoNewPrivs")])
import ctypes
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
"""


def test_all_of_it_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines() == ["'' ''", "(0, 0)", "['1']", "0"]
