"""How a worker knows what memory it holds, also when it has run out of descriptors."""

import subprocess
import sys

import psutil
import pytest

from rbee.engine.own_memory import OwnMemory

OUT_OF_DESCRIPTORS = """
import os, resource
from rbee.engine.own_memory import OwnMemory
memory = OwnMemory()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
except OSError:
    print(memory.rss_bytes())
"""


def test_it_is_what_the_kernel_says() -> None:
    assert OwnMemory().rss_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


def test_it_can_be_told_without_a_descriptor() -> None:
    command = [sys.executable, "-c", OUT_OF_DESCRIPTORS]
    told = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
    assert int(told) > 1_000_000
