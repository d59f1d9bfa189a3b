"""The synthetic engine's faults: each is real, comes when it was asked for, and not before."""

import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import psutil
import pytest

from rbee.ask import Sampling
from rbee.config import Fault, ModelConfig, SyntheticConfig
from rbee.engine.engine import Job, LoadSpec, Sampled
from rbee.engine.synthetic import SyntheticEngine
from rbee.engine.synthetic_faults import PanicError
from rbee.errors import EngineError, ExitCode
from rbee.supervisor.kin import MARK_NAME, kill_marked
from rbee.wire import Phase
from tests.e2e.server import wait_until

# Loads an engine and runs one job, saying each token, while a second thread beats.
PROCESS = """
import os, resource, signal, sys, threading, time
import msgspec
from rbee.ask import Sampling
from rbee.config import ModelConfig, SyntheticConfig
from rbee.engine.engine import Job, LoadSpec
from rbee.engine.synthetic import SyntheticEngine

def say(word):
    os.write(1, word.encode() + b"\\n")

def beat():
    while True:
        say("beat")
        time.sleep(0.02)

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
config = msgspec.json.decode(sys.argv[1], type=SyntheticConfig)
engine = SyntheticEngine()
signal.signal(signal.SIGUSR1, lambda *_: say("python handler"))
threading.Thread(target=beat, daemon=True).start()
engine.load(LoadSpec(ModelConfig(ref="synthetic", synthetic=config), None, 1),
            lambda phase, fraction: say(f"load {fraction:.2f}"))
say("loaded")
engine.enqueue(Job(1, tuple(b"hello"), 1000, Sampling()))
while True:
    for sampled in engine.step():
        say("token")
"""

TIMEOUT_S = 30.0


class Process:
    """A process with an engine that has a fault. Killed and reaped at the end."""

    def __init__(self, **settings: Any) -> None:
        config = SyntheticConfig(**{"tokens_per_s": 1000, **settings})
        self._read_end, write_end = os.pipe()
        self._child = subprocess.Popen(
            [sys.executable, "-c", PROCESS, msgspec.json.encode(config).decode()],
            stdout=write_end,
            stderr=subprocess.DEVNULL,
        )
        os.close(write_end)
        self._unread = b""

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait(TIMEOUT_S)
        os.close(self._read_end)

    def word(self, timeout_s: float = TIMEOUT_S) -> str | None:
        """What it says next; None: nothing in that time. "" once it has ended."""
        while b"\n" not in self._unread:
            if not select.select([self._read_end], [], [], timeout_s)[0]:
                return None
            read = os.read(self._read_end, 65_536)
            if not read:
                return ""
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def words_until(self, wanted: str, count: int = 1) -> list[str]:
        """All it says up to the ``count``th of these words. "": up to its end."""
        words: list[str] = []
        while words.count(wanted) < count:
            word = self.word()
            assert word is not None, f"no {wanted!r} within {TIMEOUT_S} s"
            assert word or not wanted, f"it ended without {wanted!r}"
            words.append(word)
        return words

    def exit_code(self) -> int:
        return self._child.wait(TIMEOUT_S)

    def kill(self, number: int) -> None:
        self._child.send_signal(number)

    def resident_bytes(self) -> int:
        return int(psutil.Process(self._child.pid).memory_info().rss)

    def cpu_s(self) -> float:
        return float(psutil.Process(self._child.pid).cpu_times().user)

    def children(self) -> list[psutil.Process]:
        return list(psutil.Process(self._child.pid).children())

    def descriptors(self) -> int:
        return int(psutil.Process(self._child.pid).num_fds())

    def descriptors_max(self) -> int:
        return resource.prlimit(self._child.pid, resource.RLIMIT_NOFILE)[0]


# --- in a process of its own


def test_hang_in_step_lets_other_threads_and_signals_through() -> None:
    with Process(fault="hang_in_step", fault_after_steps=3) as process:
        assert process.words_until("token", 3).count("token") == 3
        assert set(process.words_until("beat", 20)) == {"beat"}
        process.kill(signal.SIGUSR1)
        process.words_until("python handler")
        assert set(process.words_until("beat", 5)) == {"beat"}
        process.kill(signal.SIGTERM)
        assert process.exit_code() == -signal.SIGTERM


def test_hang_with_gil_stops_all_threads_and_python_handlers() -> None:
    with Process(fault="hang_with_gil", fault_after_steps=3) as process:
        process.words_until("token", 3)
        while process.word(0.5) is not None:  # 25 beats would come in that time
            pass
        process.kill(signal.SIGUSR1)
        assert process.word(0.5) is None
        process.kill(signal.SIGTERM)  # no Python handler: the kernel ends it
        assert process.exit_code() == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_crash_ends_the_process_by_the_signal(number: int) -> None:
    with Process(fault="crash", signal=int(number), fault_after_steps=2) as process:
        assert process.words_until("").count("token") == 2
        assert process.exit_code() == -number


def test_exit_ends_the_process_with_the_code() -> None:
    with Process(fault="exit", exit_code=81) as process:
        words = process.words_until("")
        assert "loaded" in words
        assert "token" not in words
        assert process.exit_code() == 81


def test_exit_in_load_ends_the_process_before_it_is_ready() -> None:
    with Process(fault="exit_in_load", exit_code=78) as process:
        assert "loaded" not in process.words_until("")
        assert process.exit_code() == 78


def test_spin_with_gil_computes_and_lets_no_other_thread_run() -> None:
    with Process(fault="spin_with_gil", fault_after_steps=3) as process:
        process.words_until("token", 3)
        while process.word(0.5) is not None:  # 25 beats would come in that time
            pass
        before_s = process.cpu_s()
        wait_until(lambda: process.cpu_s() - before_s > 0.1, TIMEOUT_S, "it to compute")
        assert process.word(0.0) is None


def test_fork_bomb_starts_processes_up_to_a_bound() -> None:
    with Process(fault="fork_bomb", fault_after_steps=1) as process:
        process.words_until("token", 3)
        children = process.children()
        assert len(children) == 300
        for child in children:
            child.kill()


def test_leak_descriptors_takes_all_that_can_be_had_and_goes_on() -> None:
    with Process(fault="leak_descriptors", fault_after_steps=1) as process:
        process.words_until("token", 3)
        limit = process.descriptors_max()
        assert process.descriptors() == limit


def test_chatter_says_more_than_a_pipe_holds() -> None:
    with Process(fault="chatter", fault_after_steps=1) as process:
        assert len(process.words_until("token")) > 0
        assert sum(map(len, process.words_until("token", 2))) > 65_536


def test_stuck_load_beats_but_makes_no_progress() -> None:
    with Process(fault="stuck_load", load_s=0.2) as process:
        process.words_until("load 0.50")
        assert set(process.words_until("beat", 20)) == {"beat"}


def test_ignore_all_outlives_sigterm_and_goes_on() -> None:
    with Process(fault="ignore_all", tokens_per_s=50) as process:
        process.words_until("loaded")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.kill(number)
        process.words_until("beat", 10)
        assert "token" in process.words_until("token")


def test_ignore_stop_dies_of_sigterm() -> None:
    with Process(fault="ignore_stop") as process:
        process.words_until("token")
        process.kill(signal.SIGTERM)
        assert process.exit_code() == -signal.SIGTERM


def test_hog_memory_takes_what_it_was_asked_to_and_goes_on() -> None:
    taken = 96 * 1024 * 1024
    with Process(fault="hog_memory", fault_after_steps=1, hog_bytes=taken) as process:
        process.words_until("token", 1)
        before = process.resident_bytes()
        process.words_until("token", 3)
        assert process.resident_bytes() - before > 0.9 * taken


def test_stray_child_leaves_a_process_in_a_session_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = f"test/{os.getpid()}"
    monkeypatch.setenv(MARK_NAME, mark)
    with Process(fault="stray_child") as process:
        process.words_until("token")
        process.kill(signal.SIGKILL)
        assert process.exit_code() == -signal.SIGKILL
    left = kill_marked(lambda found: found == mark)
    assert len(left) == 1, "it outlived its worker, and nobody else did"


# --- in this process


def loaded(fault: Fault, **settings: Any) -> SyntheticEngine:
    config = SyntheticConfig(fault=fault, tokens_per_s=1e6, **settings)
    engine = SyntheticEngine()
    spec = LoadSpec(ModelConfig(ref="synthetic", synthetic=config), None, threads=1)
    engine.load(spec, lambda phase, fraction: None)
    return engine


def enqueue(engine: SyntheticEngine, job_id: int, prompt: str = "hello") -> None:
    engine.enqueue(Job(job_id, tuple(prompt.encode()), 100, Sampling()))


def tokens(engine: SyntheticEngine, steps: int) -> list[int]:
    """How many tokens each of these steps brought."""
    return [sum(len(s.token_ids) for s in _sampled(engine)) for _ in range(steps)]


def _sampled(engine: SyntheticEngine) -> list[Sampled]:
    return [result for result in engine.step() if isinstance(result, Sampled)]


def test_out_of_memory_comes_while_loading() -> None:
    with pytest.raises(EngineError, match="out of memory") as caught:
        loaded("out_of_memory")
    assert caught.value.exit_code is ExitCode.OUT_OF_MEMORY


@pytest.mark.parametrize("settings", [{"fault_after_steps": 2}, {"fault_prompt": "now"}])
def test_out_of_memory_comes_later_if_steps_or_a_prompt_are_set(settings: dict[str, Any]) -> None:
    engine = loaded("out_of_memory", **settings)
    enqueue(engine, 1, "now")
    if "fault_after_steps" in settings:
        assert tokens(engine, 2) == [1, 1]
    with pytest.raises(EngineError) as caught:
        engine.step()
    assert caught.value.exit_code is ExitCode.OUT_OF_MEMORY


def test_panic_is_no_exception() -> None:
    engine = loaded("panic", fault_after_steps=1)
    enqueue(engine, 1)
    assert tokens(engine, 1) == [1]
    with pytest.raises(PanicError) as caught:
        engine.step()
    assert not isinstance(caught.value, Exception)


def test_silent_step_works_on_and_delivers_nothing() -> None:
    engine = loaded("silent_step", fault_after_steps=2)
    enqueue(engine, 1)
    assert tokens(engine, 10) == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert engine.phase is Phase.DECODE


def test_fault_waits_for_its_prompt_and_counts_steps_from_there() -> None:
    engine = loaded("silent_step", fault_prompt="poison", fault_after_steps=2)
    enqueue(engine, 1, "harmless")
    assert tokens(engine, 5) == [1] * 5
    enqueue(engine, 2, "a poison pill")
    assert tokens(engine, 4) == [1, 2, 0, 0]


def test_a_prompt_may_name_the_fault() -> None:
    engine = loaded("as_prompted")
    enqueue(engine, 1, "harmless, also [fault=no_such] and [fault=stuck_load]")
    assert tokens(engine, 3) == [1] * 3
    assert engine.link_fault is None
    enqueue(engine, 2, "please [fault=garbage]")
    assert tokens(engine, 1) == [1]  # the prompt is read
    assert engine.link_fault == "garbage"


def test_a_prompt_may_name_out_of_memory_and_the_load_is_none_of_it() -> None:
    engine = loaded("as_prompted")
    enqueue(engine, 1, "[fault=out_of_memory]")
    with pytest.raises(EngineError):
        engine.step()


def test_steps_without_a_job_do_not_count() -> None:
    engine = loaded("silent_step", fault_after_steps=2)
    assert tokens(engine, 5) == [0] * 5
    enqueue(engine, 1)
    assert tokens(engine, 3) == [1, 1, 0]


@pytest.mark.parametrize("fault", ["garbage", "oversize", "repeat", "unasked", "flood", "no_beats"])
def test_the_link_is_broken_from_the_step_on(fault: Fault) -> None:
    engine = loaded(fault, fault_after_steps=1)
    enqueue(engine, 1)
    assert tokens(engine, 1) == [1]
    assert engine.link_fault is None
    assert tokens(engine, 1) == [1]  # the link is broken, not the engine
    assert engine.link_fault == fault


def test_engine_without_a_fault_has_none() -> None:
    engine = SyntheticEngine()
    assert engine.link_fault is None
    engine.load(LoadSpec(ModelConfig(ref="synthetic"), None, 1), lambda phase, fraction: None)
    assert engine.link_fault is None


def test_every_fault_of_the_configuration_has_a_test_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert {fault for fault in get_args(Fault) if f'"{fault}"' not in text} == set()
