"""The books of a GPU's memory: who may have some, and when it counts as returned."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rbee.supervisor.devices import Gpu
from rbee.supervisor.ledger import Granted, Ledger, Refused, Stage, Wait
from rbee.vram import GIB, Demand

TOTAL = 80 * GIB
RELEASE_S_MAX = 10.0


def gpu(free: int, held: dict[int, int] | None = None, **more: int) -> Gpu:
    return Gpu(0, "a GPU", TOTAL, free * GIB, held_bytes=held, **more)  # type: ignore[arg-type]


def gib(least: int, most: int | None = None) -> Demand:
    return Demand(least * GIB, (least if most is None else most) * GIB)


def opened(
    free: int = 80, held: dict[int, int] | None = None, limit: float | None = None
) -> Ledger:
    ledger = Ledger(0, TOTAL, limit)
    ledger.look(gpu(free, {} if held is None else held))
    return ledger


def granted(ledger: Ledger, worker_id: str, demand: Demand) -> int:
    answer = ledger.ask(worker_id, demand)
    assert isinstance(answer, Granted), answer
    assert answer.bytes_max is not None
    return answer.bytes_max


def loaded(ledger: Ledger, worker_id: str, demand: Demand, pid: int, took: int, free: int) -> None:
    granted(ledger, worker_id, demand)
    ledger.born(worker_id, pid)
    ledger.loaded(worker_id)
    held = {
        entry.pid: entry.held_bytes or took * GIB
        for entry in ledger.entries.values()
        if entry.pid is not None
    }
    ledger.look(gpu(free, held))


def test_a_worker_gets_what_it_wants_or_what_is_left() -> None:
    assert granted(opened(), "a-0", gib(10, 70)) == 70 * GIB
    assert granted(opened(free=30), "a-0", gib(10, 70)) == 30 * GIB


def test_what_never_fits_is_refused_with_figures_and_what_to_lower() -> None:
    answer = opened().ask("a-0", gib(81))
    assert isinstance(answer, Refused)
    assert "at least 81.00 GiB of GPU 0" in answer.reason
    assert "lower context_length" in answer.reason


def test_two_workers_do_not_count_on_the_same_free_bytes() -> None:
    ledger = opened()
    granted(ledger, "a-0", gib(50))
    ledger.born("a-0", 7)
    ledger.look(gpu(60, {7: 20 * GIB}))  # it has loaded 20 of its 50
    answer = ledger.ask("b-0", gib(40))
    assert isinstance(answer, Wait)
    assert answer.may_change
    assert "a-0 loads and holds 50.00 GiB" in answer.reason
    assert granted(ledger, "b-0", gib(30)) == 30 * GIB


def test_what_a_loaded_worker_holds_takes_the_place_of_what_was_reserved() -> None:
    ledger = opened()
    loaded(ledger, "a-0", gib(50), pid=7, took=30, free=50)
    assert ledger.booked_bytes == 30 * GIB
    assert granted(ledger, "b-0", gib(50)) == 50 * GIB


def test_without_processes_the_free_memory_says_what_was_taken() -> None:
    ledger = Ledger(0, TOTAL, None)
    ledger.look(gpu(80))
    granted(ledger, "a-0", gib(10, 70))
    ledger.born("a-0", 7)
    ledger.loaded("a-0")
    ledger.look(gpu(55))
    assert ledger.tells_processes is False
    assert ledger.booked_bytes == 25 * GIB


def with_one_that_ends(free: int = 80) -> Ledger:
    """Without processes; y-0 has ended at 100 s, and its 30 GiB are not back."""
    ledger = Ledger(0, TOTAL, None)
    ledger.look(gpu(free))
    granted(ledger, "y-0", gib(30))
    ledger.born("y-0", 7)
    ledger.loaded("y-0")
    ledger.look(gpu(free - 30))
    ledger.gone("y-0", 100.0)
    assert ledger.settle(100.1, RELEASE_S_MAX) == []
    return ledger


def test_who_loads_as_the_memory_of_another_comes_back_is_not_booked_with_nothing() -> None:
    ledger = with_one_that_ends()
    granted(ledger, "x-0", gib(30))
    ledger.born("x-0", 8)
    ledger.loaded("x-0")
    ledger.look(gpu(50))  # y-0's 30 are back, and x-0 has taken as much
    assert ledger.entries["x-0"].booked_bytes == 30 * GIB
    ledger.look(None)
    assert isinstance(ledger.ask("z-0", gib(51)), Wait)
    ledger.look(gpu(50))
    assert ledger.settle(100.0 + RELEASE_S_MAX, RELEASE_S_MAX) == [], "nobody can tell"
    assert set(ledger.entries) == {"x-0"}
    ledger.look(gpu(50))
    assert ledger.booked_bytes == 30 * GIB
    ledger.gone("x-0", 200.0)
    assert ledger.settle(200.1, RELEASE_S_MAX) == []
    ledger.look(gpu(79))
    ledger.settle(200.2, RELEASE_S_MAX)
    assert ledger.booked_bytes == 0


def test_what_another_gave_back_while_one_loaded_is_added_to_what_it_took() -> None:
    ledger = with_one_that_ends()
    granted(ledger, "x-0", gib(10, 40))
    ledger.born("x-0", 8)
    ledger.look(gpu(78))
    assert ledger.settle(100.5, RELEASE_S_MAX) == []
    assert set(ledger.entries) == {"x-0"}
    ledger.loaded("x-0")
    ledger.look(gpu(65))
    assert ledger.booked_bytes == 15 * GIB


def test_memory_that_is_missing_whatever_others_may_have_taken_is_told() -> None:
    ledger = with_one_that_ends()
    granted(ledger, "x-0", gib(10))
    ledger.born("x-0", 8)
    ledger.loaded("x-0")
    ledger.look(gpu(40))  # 80, less y-0's 30, which are lost, less x-0's
    [late] = ledger.settle(100.0 + RELEASE_S_MAX, RELEASE_S_MAX)
    assert late.worker_id == "y-0"
    ledger.look(gpu(40))
    assert ledger.booked_bytes == 10 * GIB


def test_a_loaded_worker_is_never_booked_below_what_it_needs_to_load() -> None:
    ledger = Ledger(0, TOTAL, None)
    ledger.look(gpu(50))
    granted(ledger, "a-0", gib(20, 30))
    ledger.born("a-0", 7)
    ledger.loaded("a-0")
    ledger.look(gpu(55))  # another program has given back 30 meanwhile
    assert ledger.booked_bytes == 20 * GIB


def test_what_the_list_of_processes_said_holds_when_there_is_none_any_more() -> None:
    ledger = opened()
    loaded(ledger, "a-0", gib(10, 50), pid=7, took=30, free=50)
    ledger.look(gpu(70))  # another program has given back, and nothing is listed
    assert ledger.tells_processes is False
    assert ledger.booked_bytes == 30 * GIB


def test_who_is_not_in_the_list_of_processes_is_in_another_namespace() -> None:
    ledger = opened()
    granted(ledger, "a-0", gib(30))
    ledger.born("a-0", 7)
    ledger.loaded("a-0")
    ledger.look(gpu(50, {4711: 30 * GIB}))
    assert ledger.tells_processes is False


def test_a_neighbour_that_stays_is_named_with_what_it_holds_and_others_too() -> None:
    ledger = opened()
    loaded(ledger, "a-0", gib(50), pid=7, took=50, free=20)
    answer = ledger.ask("b-0", gib(40))
    assert isinstance(answer, Wait)
    assert not answer.may_change
    assert "20.00 GiB are to be had: a-0 holds 50.00 GiB of 80.00 GiB" in answer.reason
    assert "other processes 10.00 GiB" in answer.reason


def test_memory_is_back_when_the_process_is_not_listed_any_more() -> None:
    ledger = opened()
    loaded(ledger, "a-0", gib(50), pid=7, took=50, free=30)
    ledger.gone("a-0", now_s=100.0)
    assert ledger.settle(100.1, RELEASE_S_MAX) == []
    assert isinstance(ledger.ask("a-0", gib(50)), Wait)
    ledger.look(gpu(30, {}))  # not listed, and not free either
    assert ledger.settle(100.2, RELEASE_S_MAX) == []
    assert ledger.booked_bytes == 50 * GIB
    assert isinstance(ledger.ask("a-0", gib(50)), Wait)
    ledger.look(gpu(40, {4711: 40 * GIB}))  # another process has taken of it: it was back
    ledger.settle(100.3, RELEASE_S_MAX)
    assert ledger.booked_bytes == 0
    ledger.look(gpu(80, {}))
    assert granted(ledger, "a-0", gib(50)) >= 50 * GIB


def test_without_processes_it_is_back_when_as_much_is_free_again() -> None:
    ledger = Ledger(0, TOTAL, None)
    ledger.look(gpu(80))
    granted(ledger, "a-0", gib(50))
    ledger.born("a-0", 7)
    ledger.loaded("a-0")
    ledger.look(gpu(30))
    ledger.gone("a-0", now_s=100.0)
    ledger.look(gpu(60))
    assert ledger.settle(101.0, RELEASE_S_MAX) == []
    assert ledger.booked_bytes == 50 * GIB
    ledger.look(gpu(79))
    assert ledger.settle(101.0, RELEASE_S_MAX) == []
    assert ledger.booked_bytes == 0


@pytest.mark.parametrize("listed", [{7: 50 * GIB}, None])
def test_memory_that_does_not_come_back_is_told_in_the_end(listed: dict[int, int] | None) -> None:
    ledger = opened()
    loaded(ledger, "a-0", gib(50), pid=7, took=50, free=30)
    ledger.gone("a-0", now_s=100.0)
    ledger.look(gpu(30, listed))
    assert ledger.settle(100.0 + RELEASE_S_MAX - 0.1, RELEASE_S_MAX) == []
    [late] = ledger.settle(100.0 + RELEASE_S_MAX, RELEASE_S_MAX)
    assert late.worker_id == "a-0"
    answer = ledger.ask("a-0", gib(50))  # no OOM loop: what is not free is not given
    assert isinstance(answer, Wait)
    assert "other processes 50.00 GiB" in answer.reason


def test_a_worker_that_is_started_again_fits_where_it_was() -> None:
    ledger = opened()
    loaded(ledger, "a-0", gib(60, 70), pid=7, took=40, free=40)
    loaded(ledger, "b-0", gib(39), pid=8, took=38, free=2)
    ledger.gone("a-0", now_s=1.0)
    ledger.look(gpu(42, {8: 38 * GIB}))
    ledger.settle(1.1, RELEASE_S_MAX)
    assert 40 * GIB <= granted(ledger, "a-0", gib(60, 70)) <= 42 * GIB


def test_a_worker_that_was_never_started_leaves_nothing_in_the_books() -> None:
    ledger = opened()
    granted(ledger, "a-0", gib(50))
    ledger.gone("a-0", now_s=1.0)
    assert ledger.booked_bytes == 0


def test_without_nvml_the_books_decide() -> None:
    ledger = opened()
    granted(ledger, "a-0", gib(50))
    ledger.look(None)
    assert isinstance(ledger.ask("b-0", gib(40)), Wait)
    assert granted(ledger, "b-0", gib(30)) == 30 * GIB


@pytest.mark.parametrize("lie", [Gpu(0, "", 10, 11), Gpu(0, "", 10, -1)])
def test_figures_that_cannot_be_are_no_answer(lie: Gpu) -> None:
    ledger = opened()
    ledger.look(lie)
    assert ledger.gpu is None
    assert ledger.total_bytes == TOTAL


def test_processes_that_hold_more_than_there_is_are_not_believed() -> None:
    ledger = opened(held={7: 81 * GIB})
    assert ledger.tells_processes is False


def test_a_hot_gpu_takes_no_worker_until_it_is_well_below_its_limit() -> None:
    ledger = Ledger(0, TOTAL, None)
    for temperature, is_hot in ((89, False), (90, True), (88, True), (87, False)):
        ledger.look(gpu(80, {}, temperature_c=temperature, temperature_limit_c=90))
        assert ledger.is_hot is is_hot
        answer = ledger.ask("a-0", gib(1))
        if is_hot:
            assert isinstance(answer, Wait)
            assert answer.may_change
            assert f"GPU 0 has {temperature} degrees" in answer.reason
        else:
            ledger.gone("a-0", 0.0)


def test_the_operators_limit_counts_before_the_cards() -> None:
    ledger = Ledger(0, TOTAL, 70.0)
    ledger.look(gpu(80, {}, temperature_c=71, temperature_limit_c=90))
    assert ledger.is_hot


def test_a_card_that_does_not_tell_its_temperature_is_not_hot() -> None:
    ledger = opened(limit=70.0)
    assert not ledger.is_hot


class Sharing(RuleBasedStateMachine):
    """Workers come, load, grow and go; NVML is there, is blind, or is away; others take memory."""

    idle = Bundle("idle")
    standing = Bundle("standing")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(0, 80, None)
        self.holds: dict[int, int] = {}  # what is in truth on the GPU
        self.caps: dict[int, int] = {}
        self.foreign, self.now_s, self.pids = 0, 0.0, 0
        self.sight = "all"
        self.look()

    @rule(target=idle, number=st.integers(0, 5))
    def name(self, number: int) -> str:
        return f"w-{number}"

    @rule(target=standing, worker_id=idle, least=st.integers(1, 90), more=st.integers(0, 40))
    def start(self, worker_id: str, least: int, more: int) -> tuple[str, int]:
        if worker_id in self.ledger.entries:
            return ("", 0)
        self.look()
        answer = self.ledger.ask(worker_id, Demand(least, min(80, least + more)))
        if not isinstance(answer, Granted):
            return ("", 0)
        assert answer.bytes_max is not None
        assert self.ledger.booked_bytes <= 80
        # Whatever all that were let in come to take within their caps, there is room for it.
        if self.sight != "away":
            rest = sum(
                max(0, entry.booked_bytes - self.holds.get(entry.pid or 0, 0))
                for entry in self.ledger.entries.values()
                if entry.stage is Stage.RESERVED
            )
            assert rest + sum(self.holds.values()) + self.foreign <= 80
        self.pids += 1
        self.ledger.born(worker_id, self.pids)
        self.caps[self.pids], self.holds[self.pids] = answer.bytes_max, 0
        return (worker_id, self.pids)

    @rule(who=standing, part=st.floats(0, 1))
    def load(self, who: tuple[str, int], part: float) -> None:
        worker_id, pid = who
        entry = self.ledger.entries.get(worker_id)
        if entry is not None and entry.pid == pid and pid in self.holds:
            room = 80 - self.foreign - sum(self.holds.values()) + self.holds[pid]
            self.holds[pid] = min(room, int(part * self.caps[pid]))
            if entry.stage is Stage.RESERVED and part > 0.5:
                self.ledger.loaded(worker_id)
            self.look()

    @rule(who=consumes(standing), is_late=st.booleans())
    def end(self, who: tuple[str, int], is_late: bool) -> None:
        worker_id, pid = who
        entry = self.ledger.entries.get(worker_id)
        if entry is not None and entry.pid == pid and entry.stage is not Stage.RELEASING:
            self.ledger.gone(worker_id, self.now_s)
            if not is_late:
                self.holds.pop(pid, None)

    @rule(foreign=st.integers(0, 80))
    def others(self, foreign: int) -> None:
        self.foreign = min(foreign, 80 - sum(self.holds.values()))

    @rule(sight=st.sampled_from(["all", "blind", "other pids", "away"]))
    def see(self, sight: str) -> None:
        self.sight = sight

    @rule(seconds=st.floats(0.1, 20))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        alive = {
            entry.pid
            for entry in self.ledger.entries.values()
            if entry.stage is not Stage.RELEASING
        }
        for pid in [pid for pid in self.holds if pid not in alive]:
            del self.holds[pid]  # what was late is back
        self.look()
        self.ledger.settle(self.now_s, RELEASE_S_MAX)

    def look(self) -> None:
        free = 80 - self.foreign - sum(self.holds.values())
        held = {"all": dict(self.holds), "blind": None, "other pids": {}, "away": None}[self.sight]
        self.ledger.look(None if self.sight == "away" else Gpu(0, "", 80, free, held_bytes=held))

    @invariant()
    def nothing_is_booked_below_zero(self) -> None:
        assert all(entry.booked_bytes >= 0 for entry in self.ledger.entries.values())

    @invariant()
    def whoever_has_gone_is_forgotten_in_time(self) -> None:
        for entry in self.ledger.entries.values():
            if entry.stage is Stage.RELEASING:
                assert self.now_s - entry.gone_s < RELEASE_S_MAX + 20


TestSharing = Sharing.TestCase
