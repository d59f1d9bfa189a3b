"""Whether the terminal that a process lives in has closed."""

import os
import pty
import subprocess
import sys

import pytest

# It is told of what has happened, and waits for it, through its stdin: a pipe. Its terminal is
# what it had as its stdin before, when `setsid --ctty` took that for the new session.
SCRIPT = """
import resource, signal, sys
from rbee.signal_mask import hold_back
from rbee.supervisor.hang_up import Terminal
terminal = Terminal()
hold_back()
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
for line in open(int(sys.argv[1])):
    if line == "no descriptors\\n":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    elif line == "descriptors\\n":
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    elif line == "closed\\n":
        signal.sigwait({signal.SIGHUP})
    print(terminal.has_closed, flush=True)
"""


@pytest.mark.parametrize("has_terminal", [True, False])
def test_a_terminal_has_closed_only_when_the_kernel_says_so(has_terminal: bool) -> None:
    ours, theirs = pty.openpty()
    told, tell = os.pipe()
    taking = ["--ctty"] if has_terminal else []
    process = subprocess.Popen(
        ["setsid", *taking, sys.executable, "-c", SCRIPT, str(told)],
        stdin=theirs, stdout=subprocess.PIPE, text=True, pass_fds=[told],
    )  # fmt: skip
    os.close(theirs)
    os.close(told)

    def has_closed(after: str) -> bool:
        os.write(tell, f"{after}\n".encode())
        assert process.stdout is not None
        return {"True\n": True, "False\n": False}[process.stdout.readline()]

    with process:
        try:
            assert not has_closed("nothing")
            assert not has_closed("no descriptors")
            assert not has_closed("descriptors")
            os.close(ours)
            assert has_closed("closed" if has_terminal else "nothing") == has_terminal
        finally:
            os.close(tell)
