"""What a worker tells of its life: the stacks of its threads, its steps and its prompts."""

import os
import signal
import subprocess
import sys

import pytest

from rbee.engine.engine import JobFailed, Sampled
from rbee.engine.link_thread import Published
from rbee.engine.loop import WorkerLoop
from rbee.engine.step_times import READING_STEPS_KEPT, STEPS_KEPT, ReadingPace, StepTimes
from rbee.engine.synthetic import SyntheticEngine
from rbee.wire import STACKS_SIGNAL
from tests.engine.test_loop_faults import SECRET, PlainLink


def test_prompts_that_wait_are_told_before_the_step_that_reads_them() -> None:
    link, told = PlainLink(asks=2), list[Published]()

    class Watched(SyntheticEngine):
        def step(self) -> list[Sampled | JobFailed]:
            told.append(link.published)
            return super().step()

    WorkerLoop(link, SECRET, lambda _name: Watched()).run()  # type: ignore[arg-type]
    assert told[0].prompt_tokens > 0
    assert set(told[0].requests) == {1, 2}
    assert link.step_times.slow_s() > 0


def test_the_slowest_hundredth_of_the_last_steps_is_left_out() -> None:
    times = StepTimes()
    assert times.slow_s() == 0
    times.note(3.0)
    assert times.slow_s() == 3
    for _ in range(STEPS_KEPT):
        times.note(0.02)
    assert times.slow_s() == 0.02
    for _ in range(5):
        times.note(7.0)
    assert times.slow_s() == 0.02
    times.note(7.0)
    assert times.slow_s() == 7


HANGING = """
import ctypes, os, sys
from pathlib import Path
from rbee.engine.link_thread import LinkThread
def stand_still():
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(256)
    libc.pthread_mutex_init(mutex, None)
    print("standing", flush=True)
    while True:
        libc.pthread_mutex_lock(mutex)  # the interpreter lock is held meanwhile
LinkThread(Path(sys.argv[1]), os.pipe()[0]).start()
stand_still()
"""


def test_stacks_are_told_while_a_call_holds_the_interpreter_lock(tmp_path: object) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, f"{tmp_path}/link"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"standing\n"
        os.kill(process.pid, STACKS_SIGNAL)
        told = b""
        while b"stand_still" not in told:
            piece = os.read(process.stderr.fileno(), 65536)
            assert piece, told
            told += piece
        assert process.poll() is None, "being asked must not end it"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_worker_that_crashes_says_where(number: signal.Signals) -> None:
    code = (
        "import os, rbee.engine.boot as boot\n"
        "def read(descriptor):\n"
        f"    os.kill(os.getpid(), {number.value})\n"
        "boot._read_to_end = read\n"
        "boot.main(-1, -1)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=False
    )
    assert ended.returncode == -number
    assert b"in read" in ended.stderr


def test_how_fast_was_read_is_told_of_the_last_steps_together() -> None:
    pace = ReadingPace()
    assert pace.tokens_per_s() == 0
    for _ in range(READING_STEPS_KEPT):
        pace.note(1, 1.0)
    for _ in range(READING_STEPS_KEPT // 2):
        pace.note(199, 1.0)
    assert pace.tokens_per_s() == pytest.approx(100)
