"""What goes wrong in the synthetic engine, on purpose, and when.

Rule 1: a fault is real: the process does die, hang or hold the GIL. Nothing is pretended.
Rule 2: `stuck_load`, `exit_in_load`, `ignore_stop`, `ignore_all` and `stray_child` act from the
        load on. `out_of_memory` does so too, unless steps or a prompt are set. All others wait
        until `fault_after_steps` steps are done; with `fault_prompt`, steps since a job with
        that text joined the batch. `as_prompted` waits for a job that names one of them,
        as ``[fault=crash]``.
Rule 3: an engine cannot write to the link and sees no Stop. The worker loop reads
        `link_fault` after each step, and itself turns a deaf ear to Stop for `ignore_stop`,
        `ignore_all` and `stray_child`; that the latter two ignore signals too is done here.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Literal, NoReturn, get_args

from rbee.config import Fault, SyntheticConfig
from rbee.errors import EngineError, ExitCode

# What the worker loop does for us: `rbee.engine.link_faults`.
LinkFault = Literal["garbage", "oversize", "repeat", "unasked", "flood", "no_beats"]

Ending = Literal["hang_in_step", "hang_with_gil", "spin_with_gil", "exit", "panic", "out_of_memory"]
Waste = Literal["hog_memory", "fork_bomb", "leak_descriptors", "chatter"]

# What a prompt may name: those that come with a step.
_IN_LOAD: Final = frozenset(
    {"stuck_load", "exit_in_load", "ignore_stop", "ignore_all", "stray_child", "as_prompted"}
)
_NAMED: Final = re.compile(rb"\[fault=([a-z_]{1,32})\]")

_MUTEX_BYTES: Final = 256  # more than a pthread_mutex_t has on any platform
_SLEEP_S: Final = 3600.0
_CHILDREN_MAX: Final = 300  # where nothing limits it
_CHATTER_LINES: Final = 10_000
_CHATTER_BYTES: Final = 256 * 1024
_HOG_PIECE_BYTES: Final = 16 * 1024 * 1024

# Leaves its session and its parent, as daemons do, and heeds no signal that may be ignored.
_STRAY: Final = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
while True: time.sleep(3600)
"""


class Faults:
    """The one fault that the configuration names, if it names one."""

    def __init__(self, config: SyntheticConfig, sleep: Callable[[float], None]) -> None:
        self._config = config
        self._sleep = sleep
        self._steps = 0
        self._fault = config.fault
        self._is_armed = config.fault_prompt is None and config.fault != "as_prompted"
        self._at_load = self._is_armed and config.fault_after_steps == 0
        self._hogged: list[bytes] = []
        self.link_fault: LinkFault | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._descriptors: list[int] = []
        self._has_chattered = False

    def begin_load(self) -> None:
        """What goes wrong as loading begins. Called by the process's main thread.

        Raises:
          EngineError: out of memory.
        """
        if self._config.fault in ("ignore_all", "stray_child"):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        if self._config.fault == "stray_child":
            # The child's first process ends at once; it is waited for, so it is no zombie.
            command = [sys.executable, "-I", "-S", "-c", _STRAY]
            subprocess.run(command, check=True)  # noqa: S603  # our own words
        if self._config.fault == "exit_in_load":
            os._exit(self._config.exit_code)
        if self._config.fault == "out_of_memory" and self._at_load:
            raise self._out_of_memory()

    def be_half_loaded(self) -> None:
        """What goes wrong in the middle of loading: no progress, for ever."""
        if self._config.fault == "stuck_load":
            self._hang()

    def see_prompt(self, text: bytes) -> None:
        """A job with that prompt joins the batch."""
        wanted = self._config.fault_prompt
        if self._config.fault == "as_prompted":
            self._fault = _fault_named(text) or self._fault
            self._is_armed = self._fault != "as_prompted"
        elif wanted is not None and wanted.encode() in text:
            self._is_armed = True

    def begin_step(self) -> bool:
        """Let what is due go wrong. There are jobs in the batch.

        Returns:
          Whether the step may deliver tokens.
        Raises:
          EngineError: out of memory.
        """
        fault = self._fault
        if fault is None or not self._is_armed or self._steps < self._config.fault_after_steps:
            return True
        return self._strike(fault)

    def _strike(self, fault: Fault) -> bool:
        match fault:
            case "garbage" | "oversize" | "repeat" | "unasked" | "flood" | "no_beats":
                self.link_fault = fault
            case "silent_step":
                return False
            case "crash":
                os.kill(os.getpid(), self._config.signal)
            case "hog_memory" | "fork_bomb" | "leak_descriptors" | "chatter":
                self._waste(fault)
            case (
                "stuck_load" | "exit_in_load" | "ignore_stop" | "ignore_all" | "stray_child"
                | "as_prompted"
            ):  # fmt: skip
                pass
            case _:
                self._end(fault)
        return True

    def _end(self, fault: Ending) -> NoReturn:
        match fault:
            case "hang_in_step":
                self._hang()
            case "hang_with_gil":
                _hang_with_gil()
            case "spin_with_gil":
                _spin_with_gil()
            case "exit":
                os._exit(self._config.exit_code)
            case "panic":
                raise PanicError("as [model.synthetic] fault asks")
            case "out_of_memory":
                raise self._out_of_memory()

    def _waste(self, fault: Waste) -> None:
        match fault:
            case "hog_memory":
                self._hog()
            case "fork_bomb":
                self._fork()
            case "leak_descriptors":
                self._leak()
            case "chatter":
                self._chatter()

    def end_step(self) -> None:
        """A step was done for the jobs in the batch."""
        if self._is_armed:
            self._steps += 1

    def _hog(self) -> None:
        """Take `hog_bytes` of memory, by touching them, and go on."""
        while len(self._hogged) * _HOG_PIECE_BYTES < self._config.hog_bytes:
            self._hogged.append(b"x" * _HOG_PIECE_BYTES)

    def _fork(self) -> None:
        """Start processes until the limit of tasks is met, or `_CHILDREN_MAX` are there."""
        with contextlib.suppress(OSError):
            while len(self._children) < _CHILDREN_MAX:
                self._children.append(subprocess.Popen(["/bin/sleep", "3600"]))

    def _leak(self) -> None:
        """Open descriptors until no more can be had."""
        with contextlib.suppress(OSError):
            while True:
                self._descriptors.append(os.open(os.devnull, os.O_RDONLY))

    def _chatter(self) -> None:
        """Say more than any pipe holds, once: in lines, and in one too long for any log."""
        if not self._has_chattered:
            self._has_chattered = True
            os.write(2, b"the synthetic engine says much \n" * _CHATTER_LINES)
            os.write(1, b"x" * _CHATTER_BYTES)

    def _hang(self) -> NoReturn:
        while True:
            self._sleep(_SLEEP_S)

    def _out_of_memory(self) -> EngineError:
        return EngineError(
            "the synthetic engine is out of memory, as [model.synthetic] fault asks",
            ExitCode.OUT_OF_MEMORY,
        )


class PanicError(BaseException):
    """No Exception, as the panics of libraries in Rust are none."""


def _fault_named(prompt: bytes) -> Fault | None:
    found = _NAMED.search(prompt)
    name = found[1].decode() if found is not None else ""
    known: tuple[Fault, ...] = get_args(Fault)
    return next((each for each in known if each == name and each not in _IN_LOAD), None)


def _spin_with_gil() -> NoReturn:
    """Compute for ever inside one call that never gives the GIL back."""
    while True:
        pow(3, 1 << 34)


def _hang_with_gil() -> NoReturn:
    """Lock a mutex twice in C, with the GIL held.

    Waiting for a lock goes on after a signal, which a sleep does not: no Python signal handler
    gets to run, as in a kernel launch that never returns.
    """
    libc = ctypes.PyDLL(None)  # unlike CDLL it keeps the GIL during a call
    mutex = ctypes.create_string_buffer(_MUTEX_BYTES)
    libc.pthread_mutex_init(mutex, None)
    while True:
        libc.pthread_mutex_lock(mutex)
