"""What hashing takes for a moment is given back: 19 MiB would stay with each thread else."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import threading
from pathlib import Path
from rbee.supervisor.access.hashing import hash_key
from rbee.supervisor.preparation import return_large_memory

def held_bytes():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

return_large_memory()
hash_key("a")
before = held_bytes()
together = threading.Barrier(5)

def hash_some():
    for _ in range(3):
        hash_key("a")
    together.wait()  # so that each has memory of its own
    together.wait()

threads = [threading.Thread(target=hash_some) for _ in range(4)]
for thread in threads:
    thread.start()
together.wait()
print(held_bytes() - before)
together.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do otherwise")
def test_threads_that_have_hashed_keep_no_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, timeout=60, check=True
    )
    assert int(done.stdout) < 19 * 1024 * 1024
