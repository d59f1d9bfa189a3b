"""What is secured before a kill and reported after it, on a clock that costs no time."""

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from rbee.ask import Ask
from rbee.config import ModelConfig, RestartConfig, WorkerConfig
from rbee.supervisor.crashes import CRASH_BYTES_MAX, Crashes
from rbee.supervisor.devices import Gpu, GpuSurvey
from rbee.supervisor.evidence import CrashRecorder
from rbee.supervisor.last_lines import LastLines
from rbee.supervisor.ledger import Answer, Refused
from rbee.supervisor.slot import Slot, SlotState, Surroundings, keep_filled
from rbee.supervisor.worker import Worker, WorkerPlan
from rbee.wire import Welcome
from tests.supervisor.fakes import FakeChild, FakeLaunch, Heard, NoLog, plan
from tests.supervisor.test_worker import Middle

SECRET_PROMPT = "the prompt that nobody may see"


def gpu_plan() -> WorkerPlan:
    model = ModelConfig(ref="file:/m", name="m", engine="exllamav2")
    return WorkerPlan("m-0", Welcome(model, "/m", 1, 5.0))


last_seen = GpuSurvey((Gpu(0, "H200", 1000, 11),), "")


class Place:
    """One slot, with a recorder of its own."""

    def __init__(self, folder: Path, *children: FakeChild, on_gpu: bool = False) -> None:
        self.log = NoLog()
        self.lines = LastLines(self.log)
        self.crashes = Crashes(folder, self.lines)
        self.crashes.load()
        self.launch, self.slot = FakeLaunch(*children), Slot(gpu_plan() if on_gpu else plan())
        self.heard = Heard(on_ready=self._ask)
        self.gate: Full | None = None
        self.recorder = CrashRecorder(
            self.lines, self.crashes, self._survey, lambda _: last_seen if on_gpu else None
        )
        self.driver_answers = threading.Event()
        self.driver_answers.set()

    def _survey(self) -> GpuSurvey:
        self.driver_answers.wait(30)
        return GpuSurvey((Gpu(0, "H200", 1000, 10),), "")

    def _ask(self, worker: Worker) -> None:
        ask = Ask(model="m", prompt=SECRET_PROMPT)
        worker.generate(len(self.heard.ready), ask, 300, "cid-1")

    async def live(self, seconds: float, limits: WorkerConfig = WorkerConfig()) -> None:  # noqa: B008
        around = Surroundings(
            self.launch, limits, RestartConfig(), self.heard, Middle(),  # type: ignore[arg-type]
            self.lines, self.recorder, gate=self.gate,
        )  # fmt: skip
        with trio.move_on_after(seconds):
            await keep_filled(self.slot, around)

    def newest(self) -> dict[str, Any]:
        report = self.crashes.report(self.crashes.newest_first()[0].id)
        assert report is not None
        found: dict[str, Any] = json.loads(report)
        return found


class Full:
    """A gate that lets nobody onto its GPU."""

    room_timeout_s = 0.0

    async def ask(self, worker_id: str) -> Answer:
        return Refused("it needs 5 GiB, and 1 GiB are to be had")

    def born(self, worker_id: str, worker: Worker) -> None:
        raise AssertionError(worker_id)

    def gone(self, worker_id: str) -> None:
        raise AssertionError(worker_id)


class Talkative(FakeChild):
    """Prints its stacks when asked, as a real one does."""

    lines: LastLines

    def ask_stacks(self) -> None:
        super().ask_stacks()
        for line in ("Current thread 0x1 (most recent call first):", '  File "loop.py", line 1'):
            self.lines.info("worker_output", worker="m-0", pid=self.pid, line=line)


async def test_a_hung_worker_tells_its_stacks_before_it_is_killed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    child = Talkative(answers=False, beats_until_s=20)
    place = Place(tmp_path, child)
    child.lines = place.lines
    await place.live(29)
    assert (child.stacks_asked, child.killed) == (1, ["hung: no beat for 10.25 s"])
    assert place.launch.reaped_at_s[0] <= 25.25 + 0.1
    report = place.newest()
    assert report["stacks"][1] == '  File "loop.py", line 1'
    assert (report["cause"], report["verdict"], report["signal"]) == ("hang", "silent", 9)
    assert [each["correlation_id"] for each in report["requests"]] == ["cid-1"]
    assert [beat["age_s"] for beat in report["beats"]][-1] == pytest.approx(10.3, abs=0.1)
    assert report["restart_in_s"] == 1.0


async def test_a_worker_that_cannot_answer_is_killed_all_the_same(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Place(tmp_path, FakeChild(beats_until_s=20, answers=False))
    await place.live(29)
    assert place.launch.reaped_at_s[0] == pytest.approx(25.25 + 0.15, abs=0.01)
    assert place.newest()["stacks"] == []


def written(folder: Path) -> list[Path]:
    """The reports in it. A mocked clock does not wait for the thread that writes: we do."""
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s and not list(folder.glob("*.json")):
        time.sleep(0.01)
    return list(folder.glob("*.json"))


async def test_a_crash_is_reported_and_the_next_worker_comes_after_its_backoff(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Place(tmp_path, FakeChild(exit_after_s=5, signal=11, answers=False))
    await place.live(8)
    report = place.newest()
    assert (report["cause"], report["how"]) == ("crash", "ended by signal 11")
    assert place.launch.launched_at_s[1] == pytest.approx(5 + 1, abs=0.05)
    files = written(place.crashes.folder)
    assert [file.stem for file in files] == [report["id"]]
    assert any(event == "crash_reported" for event, _ in place.log.events)


async def test_no_report_holds_a_prompt_or_a_secret(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Place(tmp_path, FakeChild(exit_after_s=5, signal=11, answers=False))
    await place.live(8)
    raw = json.dumps(place.newest())
    assert SECRET_PROMPT not in raw
    assert "ssssssss" not in raw, "the link's secret"


async def test_a_report_that_cannot_be_written_delays_nobody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Place(tmp_path, FakeChild(exit_after_s=5, signal=11))
    place.crashes.folder.rmdir()
    place.crashes.folder.write_text("in the way")
    await place.live(8)
    assert place.launch.launched_at_s[1] == pytest.approx(6, abs=0.05)
    assert place.newest()["cause"] == "crash"
    [event] = [fields for event, fields in place.log.events if event == "crash_report_not_written"]
    assert event["problem"]


async def test_a_disk_that_hangs_holds_one_thread_and_delays_nobody(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, *(FakeChild(exit_after_s=5, signal=11) for _ in range(3)))
    answers, has_begun, begun = threading.Event(), threading.Event(), []

    def write(crash_id: str) -> None:
        begun.append(crash_id)
        has_begun.set()
        answers.wait(30)

    monkeypatch.setattr(place.crashes, "write", write)
    try:
        await place.live(20)
        borrowed = trio.to_thread.current_default_thread_limiter().borrowed_tokens
        assert has_begun.wait(10)  # a mocked clock does not wait for threads
    finally:
        answers.set()
    assert len(place.crashes.newest_first()) == 3
    assert len(begun) == 1
    assert borrowed == 0, "what everybody else needs to start a thread"
    events = [event for event, _ in place.log.events]
    assert events.count("crash_report_not_written") == 3


async def test_a_report_is_never_too_long(tmp_path: Path, autojump_clock: MockClock) -> None:
    place = Place(tmp_path, FakeChild(exit_after_s=5, signal=11))

    async def chatter() -> None:
        for number in range(200):
            place.lines.info("worker_output", worker="m-0", line=f"{number} " + "\x01" * 2000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chatter)
        await place.live(8)
    report = place.newest()
    assert len(json.dumps(report)) <= CRASH_BYTES_MAX * 1.1
    assert report["lines"][-2]["text"].startswith("199 ")


async def test_a_worker_that_was_asked_to_end_leaves_no_report(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Place(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.live, 60)
        await trio.sleep(5)
        place.slot.stop()
        await trio.sleep(5)
        assert place.slot.state is SlotState.STOPPED
        assert place.crashes.newest_first() == []
        assert place.lines.of("m-0") == []
        nursery.cancel_scope.cancel()


async def test_a_driver_that_hangs_holds_up_no_kill(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    hung = (FakeChild(beats_until_s=20, answers=False) for _ in range(3))
    place = Place(tmp_path, *hung, on_gpu=True)
    place.driver_answers.clear()
    try:
        await place.live(100)
    finally:
        place.driver_answers.set()
    assert place.launch.reaped_at_s[0] == pytest.approx(25.25 + 0.15, abs=0.01)
    assert len(place.crashes.newest_first()) == 3
    assert place.newest()["gpus"]["gpus"][0]["memory_free_bytes"] == 11, "what was last seen"


async def test_a_worker_that_cannot_be_started_leaves_a_report_that_says_why(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def launch(worker_id: str, *, task_status: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/venv/bin/python")

    place = Place(tmp_path)
    place.launch = launch  # type: ignore[assignment]
    await place.live(0.5)
    report = place.newest()
    assert report["how"] == "cannot be started: No such file or directory: /venv/bin/python"
    assert (report["cause"], report["pid"], report["slot"]) == ("load_failure", None, "m-0")
    assert [file.stem for file in written(place.crashes.folder)] == [report["id"]]
    again = Crashes(tmp_path, place.lines)
    again.load()
    assert again.newest_first() == place.crashes.newest_first(), "it outlives the supervisor"


async def test_a_worker_without_room_leaves_a_report_with_what_was_seen_of_the_gpus(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Place(tmp_path, on_gpu=True)
    place.gate = Full()
    await place.live(0.5)
    report = place.newest()
    assert report["how"] == "out_of_memory: it needs 5 GiB, and 1 GiB are to be had"
    assert (report["cause"], report["pid"]) == ("out_of_memory", None)
    assert report["gpus"]["gpus"][0]["memory_free_bytes"] == 11


async def test_a_worker_that_crashes_on_its_gpu_has_what_was_seen_of_it_in_its_report(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Place(tmp_path, FakeChild(exit_after_s=5, signal=11), on_gpu=True)
    await place.live(5.5)
    assert place.newest()["gpus"]["gpus"][0]["memory_free_bytes"] == 11


async def test_the_gpus_are_looked_at_while_the_worker_still_holds_them(tmp_path: Path) -> None:
    place = Place(tmp_path, FakeChild(beats_until_s=0, load_s=60), on_gpu=True)
    await place.live(2, WorkerConfig(beat_s=0.1))  # threads know no clock but the real one
    assert place.newest()["gpus"]["gpus"][0]["memory_free_bytes"] == 10
