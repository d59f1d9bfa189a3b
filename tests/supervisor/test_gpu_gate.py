"""Workers on GPUs: let on one after the other, off again, and told when they must wait."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from rbee.config import GpuConfig, ModelConfig, RestartConfig, SyntheticConfig
from rbee.supervisor.demands import GpuPlace, gpu_places, read_shape, uncounted
from rbee.supervisor.devices import Gpu, GpuSurvey
from rbee.supervisor.gpu_gate import LOOK_S_MAX, GpuGate
from rbee.supervisor.ledger import Granted, Wait
from rbee.supervisor.slot import Slot, SlotState, Surroundings, keep_filled
from rbee.supervisor.worker import WorkerPlan
from rbee.vram import GIB, Demand
from rbee.wire import Welcome
from tests.supervisor.fakes import FakeChild, FakeLaunch, Heard, NoLog, plan
from tests.supervisor.test_worker import LIMITS, Middle


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps does not wait for threads: what is done in one takes 10 ms of it."""

    async def run_sync(
        act: Callable[..., object], *arguments: object, **_options: object
    ) -> object:
        await trio.sleep(0.01)
        return act(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


RELEASE_S_MAX = GpuConfig().release_timeout_s
SILENT = GpuSurvey((), "NVML: driver not loaded")


class FakeNvml:
    """A GPU of 80 GiB on which each living worker holds 50."""

    def __init__(self, *launches: FakeLaunch) -> None:
        self.launches = launches
        self.late_s = 0.0
        self.foreign = 0
        self.temperature_c = 40
        self.lists = True
        self.is_silent = False
        self.hangs: threading.Event | None = None
        self.asked = 0

    def survey(self) -> GpuSurvey:
        self.asked += 1
        if self.hangs is not None:
            self.hangs.wait(60)
        if self.is_silent:
            return SILENT
        pids, taken = [], self.foreign * GIB
        for launch in self.launches:
            for number, _ in enumerate(launch.launched_at_s):
                ended = number < len(launch.reaped_at_s)
                if not ended:
                    pids.append(42)
                if not ended or trio_time() < launch.reaped_at_s[number] + self.late_s:
                    taken += 50 * GIB
        held = dict.fromkeys(pids, 50 * GIB) if self.lists else None
        gpu = Gpu(
            0, "a GPU", 80 * GIB, 80 * GIB - taken, temperature_c=self.temperature_c,
            temperature_limit_c=90, held_bytes=held,
        )  # fmt: skip
        return GpuSurvey((gpu,), "")


_clock: list[MockClock] = []


def trio_time() -> float:
    """As the loop has it; the survey runs in a thread."""
    return _clock[-1].current_time() if _clock else 0.0


class Stand:
    """Slots that share a GPU."""

    def __init__(self, clock: MockClock, *children: list[FakeChild], **settings: float) -> None:
        _clock[:] = [clock]
        self.log = NoLog()
        self.launches = [FakeLaunch(*each) for each in children]
        self.slots = [Slot(plan(f"m-{number}")) for number in range(len(children))]
        self.nvml = FakeNvml(*self.launches)
        place = GpuPlace(0, Demand(50 * GIB, 50 * GIB))
        self.gate = GpuGate(
            {slot.slot_id: place for slot in self.slots}, self.nvml.survey(), self.nvml.survey,
            GpuConfig(**settings), self.log,  # type: ignore[arg-type]
        )  # fmt: skip

    async def keep(self, number: int) -> None:
        around = Surroundings(
            self.launches[number], LIMITS, RestartConfig(), Heard(), Middle(), self.log,  # type: ignore[arg-type]
            gate=self.gate,
        )  # fmt: skip
        await keep_filled(self.slots[number], around)

    async def run(self, until_s: float) -> None:
        with trio.move_on_at(until_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.gate.watch)
                for number in range(len(self.slots)):
                    nursery.start_soon(self.keep, number)
                    await trio.testing.wait_all_tasks_blocked()
                await trio.sleep_forever()

    def told(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.log.events if name == event]


def serving() -> FakeChild:
    return FakeChild()


def crashing(after_s: float) -> FakeChild:
    return FakeChild(exit_after_s=after_s, signal=11)


async def test_the_next_worker_is_started_when_the_memory_of_the_last_is_back(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [crashing(10), serving()])
    stand.nvml.late_s = 5.0
    await stand.run(30)
    [launch] = stand.launches
    assert launch.launched_at_s[0] == pytest.approx(0, abs=0.1)
    gone_s = launch.reaped_at_s[0]
    assert gone_s + 5 <= launch.launched_at_s[1] <= gone_s + 6.1
    [waited] = stand.told("worker_waits")
    assert "GPU 0" in str(waited["reason"])


async def test_memory_that_does_not_come_back_in_time_is_told_and_never_overbooked(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [crashing(10), serving()], room_timeout_s=20.0)
    stand.nvml.late_s, stand.nvml.lists = 1000.0, False
    await stand.run(60)
    [late] = stand.told("vram_not_released")
    assert late["worker"] == "m-0"
    assert len(stand.launches[0].launched_at_s) == 1
    [failed] = stand.told("slot_failed")
    assert failed["cause"] == "out_of_memory"
    assert "other processes 50.00 GiB" in str(failed["last"])
    assert autojump_clock.current_time() > 10 + RELEASE_S_MAX


async def test_of_two_that_do_not_fit_together_one_serves_and_one_says_why_not(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [serving()], [serving()], room_timeout_s=20.0)
    seen: list[SlotState] = []

    async def look() -> None:
        await trio.sleep(10)
        seen.append(stand.slots[1].state)
        assert "m-0 holds 50.00 GiB of 80.00 GiB" in stand.slots[1].waits_for
        await trio.sleep(20)
        seen.append(stand.slots[1].state)
        assert "m-0 holds 50.00 GiB" in stand.slots[1].last_failure
        assert stand.slots[1].waits_for == ""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await stand.run(trio.current_time() + 31)
    assert seen == [SlotState.WAITING, SlotState.FAILED]
    [failed] = stand.told("slot_failed")
    assert failed["cause"] == "out_of_memory"
    assert failed["slot"] == "m-1"


async def test_an_operators_stop_ends_the_waiting(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [serving()], [serving()])
    second = stand.slots[1]
    states: list[SlotState] = []

    async def stop_it() -> None:
        await trio.sleep(1)
        second.stop()
        await trio.sleep(1)
        states.append(second.state)
        second.restart()
        await trio.sleep(1)
        states.append(second.state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_it)
        await stand.run(5)
    assert states == [SlotState.STOPPED, SlotState.WAITING]


async def test_who_is_stopped_while_the_gpu_is_asked_leaves_nothing_in_the_books(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [serving()])
    states: list[SlotState] = []

    async def stop_it() -> None:
        await trio.sleep(0.005)  # the look takes 10 ms
        stand.slots[0].stop()
        await trio.sleep(1)
        states.append(stand.slots[0].state)
        assert stand.gate.held("m-0") is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_it)
        await stand.run(2)
    assert states == [SlotState.STOPPED]
    assert stand.launches[0].launched_at_s == []


async def test_a_hot_gpu_takes_no_worker_until_it_has_cooled_down(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [serving()], room_timeout_s=1.0)
    stand.nvml.temperature_c = 95

    async def cool() -> None:
        await trio.sleep(300)
        [view] = stand.gate.gpus()
        assert (view.state, view.temperature_c, view.temperature_limit_c) == ("hot", 95, 90)
        stand.nvml.temperature_c = 60

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cool)
        await stand.run(310)
    [started_s] = stand.launches[0].launched_at_s
    assert 300 <= started_s < 302
    assert len(stand.told("gpu_hot")) == len(stand.told("gpu_cool")) == 1


async def test_nvml_that_is_lost_is_told_once_and_workers_go_on(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [crashing(20), serving()])

    async def lose() -> None:
        await trio.sleep(10)
        stand.nvml.is_silent = True
        await trio.sleep(60)
        [view] = stand.gate.gpus()
        assert (view.state, view.measured_by) == ("unknown", "books")
        assert "driver not loaded" in view.problem
        stand.nvml.is_silent = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose)
        await stand.run(100)
    # Without proof the memory counts as returned after a while.
    first, second = stand.launches[0].launched_at_s
    assert second == pytest.approx(first + 20 + RELEASE_S_MAX, abs=1.0)
    assert len(stand.told("gpu_unknown")) == len(stand.told("gpu_known")) == 1


async def test_without_processes_in_nvml_it_is_said_once_and_free_memory_counts(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [crashing(10), serving()])
    stand.nvml.late_s, stand.nvml.lists = 5.0, False
    await stand.run(30)
    [launch] = stand.launches
    assert launch.reaped_at_s[0] + 5 <= launch.launched_at_s[1] <= launch.reaped_at_s[0] + 6.1
    assert len(stand.told("gpu_processes_unknown")) == 1


async def test_a_call_that_hangs_in_the_driver_holds_one_thread_and_nobody_else() -> None:
    stand = Stand(MockClock(), [serving()], [serving()])
    nvml, gate = stand.nvml, stand.gate
    nvml.hangs = threading.Event()
    try:
        begun_s = trio.current_time()
        assert isinstance(await gate.ask("m-0"), Granted)  # by the books
        first_s = trio.current_time() - begun_s
        assert first_s >= LOOK_S_MAX * 0.9
        asked = nvml.asked
        for _ in range(5):
            await trio.sleep(0.06)
            with trio.fail_after(1):
                assert isinstance(await gate.ask("m-1"), Wait)
        assert nvml.asked == asked, "there is a second call beside the one that hangs"
        [view] = gate.gpus()
        assert view.state == "unknown"
    finally:
        nvml.hangs.set()


async def test_a_quarantined_gpu_takes_no_worker(
    autojump_clock: MockClock, no_threads: None
) -> None:
    stand = Stand(autojump_clock, [serving()])
    stand.gate._quarantine = lambda gpu: f"GPU {gpu} is in quarantine"
    answer = await stand.gate.ask("m-0")
    assert answer == Wait("GPU 0 is in quarantine", may_change=True)
    assert stand.gate.gpus()[0].state == "quarantined"


async def test_a_gpu_is_known_by_its_serial_name_when_another_is_lost(
    autojump_clock: MockClock, no_threads: None
) -> None:
    def gpu(index: int, uuid: str, free: int) -> Gpu:
        return Gpu(index, "", 80 * GIB, free * GIB, uuid=uuid, held_bytes={})

    both = GpuSurvey((gpu(0, "GPU-a", 80), gpu(1, "GPU-b", 80)), "")
    left = GpuSurvey((gpu(0, "GPU-b", 10),), "")
    place = GpuPlace(1, Demand(50 * GIB, 50 * GIB))
    gate = GpuGate({"b-0": place}, both, lambda: left, GpuConfig(), NoLog())
    assert isinstance(await gate.ask("b-0"), Wait)
    [view] = gate.gpus()
    assert view.memory_free_bytes == 10 * GIB


def test_a_model_on_the_cpu_has_no_place() -> None:
    assert gpu_places([plan()], GpuSurvey((Gpu(0, "", 1, 1),), ""), None) == {}
    assert uncounted([plan()], {}) == []


def test_a_place_is_what_the_model_will_need_where_cuda_puts_it() -> None:
    config = ModelConfig(
        ref="synthetic", name="m", engine="synthetic", gpu=0,
        synthetic=SyntheticConfig(vram_bytes=5 * GIB),
    )  # fmt: skip
    on_gpu = WorkerPlan("m-0", Welcome(config, "", 1, 5.0))
    survey = GpuSurvey((Gpu(1, "", 80 * GIB, 80 * GIB, uuid="GPU-b"),), "")
    place = GpuPlace(1, Demand(5 * GIB, 5 * GIB))
    assert gpu_places([on_gpu], survey, "GPU-b") == {"m-0": place}
    assert gpu_places([on_gpu], survey, "MIG-7") == gpu_places([on_gpu], survey, None) == {}
    assert uncounted([on_gpu], {}) == ["m-0"]


def test_a_folder_that_cannot_be_read_is_left_to_the_worker(tmp_path: Path) -> None:
    assert read_shape(tmp_path) == (None, 0)
    (tmp_path / "a.safetensors").write_bytes(bytes(10))
    (tmp_path / "config.json").write_text("[]")
    assert read_shape(tmp_path) == (None, 10)
    (tmp_path / "config.json").write_text("{")
    assert read_shape(tmp_path) == (None, 0)
