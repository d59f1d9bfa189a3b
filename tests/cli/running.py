"""Runs the real command line: as a child process on pipes, or on a terminal of its own."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 10.0
COMMAND = [sys.executable, "-m", "rbee"]
# Take the terminal for our own, so that its Ctrl-C is for us, and go on as `python -m rbee`.
_ON_TERMINAL = (
    "import fcntl, runpy, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " runpy.run_module('rbee', run_name='__main__', alter_sys=True)"
)
CTRL_C = b"\x03"
CTRL_D = b"\x04"


def run_rbee(
    *arguments: str, cwd: Path | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        input=stdin,
        cwd=cwd,
        timeout=TIMEOUT_S,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class Terminal:
    """A command on a pseudo-terminal: `type` and `wait_for` are the operator."""

    def __init__(self, child: "subprocess.Popen[bytes]", master: int) -> None:
        self.child = child
        self.shown = ""
        self._master = master
        self._seen = 0

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def interrupt(self, text: str) -> None:
        """Press Ctrl-C at the prompt until the text is shown.

        Once may not be enough: CPython's readline sleeps through a signal that comes between
        its last look for one and its `select`, until the next key.
        """
        for _ in range(5):
            self.type(CTRL_C)
            with contextlib.suppress(AssertionError):
                return self.wait_for(text, timeout_s=2)
        return self.wait_for(text)

    def wait_for(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the text is shown, after what was waited for before."""
        until_s = time.monotonic() + timeout_s
        while text not in self.shown[self._seen :]:
            left_s = until_s - time.monotonic()
            assert left_s > 0, f"{text!r} did not come; shown is {self.shown!r}"
            if select.select([self._master], [], [], left_s)[0]:
                try:
                    read = os.read(self._master, 65536)
                except OSError:  # EIO: the child closed its end
                    read = b""
                assert read, f"{text!r} did not come before the end; shown is {self.shown!r}"
                self.shown += read.decode(errors="replace")
        self._seen = self.shown.index(text, self._seen) + len(text)

    def wait_end(self) -> int:
        """Read to the end.

        Returns:
          The exit code.
        """
        with contextlib.suppress(OSError):  # EIO: the child closed its end
            while read := os.read(self._master, 65536):
                self.shown += read.decode(errors="replace")
        return self.child.wait(TIMEOUT_S)


@contextmanager
def on_terminal(*arguments: str, cwd: Path, columns: int = 120) -> Iterator[Terminal]:
    """Start a command with a terminal as its stdin, stdout and stderr, and for its Ctrl-C."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm", "PYTHONUNBUFFERED": "1"}
    for name in ("COLUMNS", "LINES"):  # they would hide this terminal's own size
        environ.pop(name, None)
    child = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        env=environ,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(child, master)
    finally:
        child.kill()
        child.wait(TIMEOUT_S)
        os.close(master)
