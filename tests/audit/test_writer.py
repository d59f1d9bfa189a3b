"""The thread that writes: nobody waits who must not, nobody is told "done" who is not."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from rbee.audit import Audit
from rbee.audit import writer as writer_module
from rbee.audit.disk import RealDisk
from rbee.audit.events import ConfigRejected, KeyRevoked, Outcome
from rbee.audit.opening import open_audit
from rbee.audit.place import place_in
from rbee.audit.reading import verify
from rbee.audit.trail import Trail
from rbee.audit.writer import AuditWriter
from rbee.config import AuditConfig
from rbee.errors import AuditError, ConfigError
from tests.api.face import LogLines
from tests.audit.log import entries, events, good

DEED = KeyRevoked(key="k1", fingerprint="ab12cd", reason="test")


def event(number: int) -> ConfigRejected:
    return ConfigRejected(problem=str(number))


class Valve(RealDisk):
    """A disk that can be made to fail, or to take its time."""

    def __init__(self) -> None:
        self.code = 0
        self.fails_on = {"write", "sync"}
        self.is_stuck = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()
        self.syncs = 0

    def _pass(self, name: str) -> None:
        if not self.may_go.is_set():
            self.is_stuck.set()
            assert self.may_go.wait(30)
        if self.code and name in self.fails_on:
            raise OSError(self.code, os.strerror(self.code))

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._pass("write")
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._pass("sync")
        self.syncs += 1
        super().sync(descriptor)


class Stand:
    """A writer on a valve."""

    def __init__(self, state_dir: Path, config: AuditConfig) -> None:
        self.place = place_in(state_dir)
        self.disk = Valve()
        self.log = LogLines()
        self.audit = AuditWriter(Trail(self.place, config, None, disk=self.disk), config, self.log)

    def told(self, name: str) -> int:
        return len([line for line in self.log.lines if line[1] == name])


@contextmanager
def writing(state_dir: Path, **config: object) -> Iterator[Stand]:
    stand = Stand(state_dir, AuditConfig(**config))  # type: ignore[arg-type]
    try:
        yield stand
    finally:
        stand.disk.may_go.set()
        stand.audit.close()


async def until(condition: object, timeout_s: float = 10) -> None:
    assert callable(condition)
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.005)


async def in_state(audit: Audit, state: str) -> None:
    await until(lambda: audit.state.state == state)


async def test_what_was_recorded_durably_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    with writing(tmp_path) as stand:
        await stand.audit.record_durably(DEED, actor="operator:0", outcome=Outcome.SUCCESS)
        assert stand.disk.syncs >= 1
        [entry] = entries(stand.place)
        assert entry["event"] == "key.revoked"
        assert entry["details"] == {"key": "k1", "fingerprint": "ab12cd", "reason": "test"}
        assert (entry["actor"], entry["outcome"]) == ("operator:0", "success")


async def test_many_who_wait_share_a_sync_and_all_are_recorded_once(tmp_path: Path) -> None:
    with writing(tmp_path, sync_s=60.0) as stand:
        stand.disk.may_go.clear()
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(
                    lambda n: stand.audit.record_durably(event(n), actor="a"), number
                )
            await trio.testing.wait_all_tasks_blocked()
            stand.disk.may_go.set()
        assert sorted(int(e["details"]["problem"]) for e in entries(stand.place)) == [*range(500)]
        assert stand.disk.syncs < 50
        await until(lambda: stand.audit.state.waiting == 0)
    good(stand.place)


async def test_what_is_recorded_is_written_soon_and_anchored_within_sync_s(tmp_path: Path) -> None:
    with writing(tmp_path, sync_s=0.05) as stand:
        stand.audit.record(event(1), actor="a")
        await until(stand.place.anchor.exists)
        await until(lambda: '"seq":1' in stand.place.anchor.read_text("utf-8"))
        await in_state(stand.audit, "recording")
        assert (stand.audit.state.seq, stand.audit.state.lost) == (1, 0)
        assert stand.audit.state.hash == entries(stand.place)[0]["hash"]


async def test_the_end_writes_all_that_waits(tmp_path: Path) -> None:
    stand = Stand(tmp_path, AuditConfig(sync_s=60.0))
    for number in range(3000):
        stand.audit.record(event(number), actor="a")
    assert stand.audit.close()
    assert [int(each["details"]["problem"]) for each in entries(stand.place)] == [*range(3000)]
    assert good(stand.place).entries == 3000


async def test_many_threads_record_into_one_chain(tmp_path: Path) -> None:
    stand = Stand(tmp_path, AuditConfig())

    def record(name: int) -> None:
        for number in range(200):
            stand.audit.record(event(name * 1000 + number), actor=f"thread {name}")

    async with trio.open_nursery() as nursery:
        for name in range(8):
            nursery.start_soon(trio.to_thread.run_sync, record, name)
    assert stand.audit.close()
    found = [int(each["details"]["problem"]) for each in entries(stand.place)]
    for name in range(8):
        mine = [number for number in found if number // 1000 == name]
        assert mine == [name * 1000 + number for number in range(200)]
    good(stand.place)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
async def test_closed_refuses_a_deed_that_cannot_be_recorded_and_heals_by_itself(
    code: int, tmp_path: Path
) -> None:
    with writing(tmp_path) as stand:
        await stand.audit.record_durably(event(1), actor="a")
        stand.disk.code = code
        with pytest.raises(AuditError, match=r"key\.revoked cannot be recorded: "):
            await stand.audit.record_durably(DEED, actor="a")
        stand.audit.record(event(2), actor="a")  # refused by nobody
        await in_state(stand.audit, "failing")
        assert stand.audit.state.reason == os.strerror(code)
        stand.disk.code = 0
        await stand.audit.record_durably(event(3), actor="a")  # tries at once
        await in_state(stand.audit, "recording")
        assert stand.told("audit_failing") == stand.told("audit_healed") == 1
    told = [
        e["details"]["problem"] for e in entries(stand.place) if e["event"] == "config.rejected"
    ]
    assert told == ["1", "2", "3"]
    assert "key.revoked" not in events(stand.place)  # it was refused
    assert ("audit.damaged" in events(stand.place)) == (code == errno.EIO)


async def test_open_lets_a_deed_pass_and_records_it_when_there_is_room(tmp_path: Path) -> None:
    with writing(tmp_path, on_failure="open") as stand:
        stand.disk.code = errno.ENOSPC
        await stand.audit.record_durably(DEED, actor="a")
        await in_state(stand.audit, "failing")
        stand.disk.code = 0
        await in_state(stand.audit, "recording")
    assert events(stand.place) == ["key.revoked"]
    good(stand.place)


async def test_a_deed_is_refused_when_its_record_may_not_be_on_the_disk(tmp_path: Path) -> None:
    with writing(tmp_path) as stand:
        await stand.audit.record_durably(event(1), actor="a")
        stand.disk.code, stand.disk.fails_on = errno.EIO, {"sync"}
        with pytest.raises(AuditError, match="may not be on the disk"):
            await stand.audit.record_durably(DEED, actor="a")
        stand.disk.code = 0
        await in_state(stand.audit, "recording")
    flaw = verify(stand.place).flaw
    assert flaw is not None
    assert flaw.kind == "damaged"
    assert events(stand.place)[-1] == "audit.damaged"


async def test_what_finds_no_room_is_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "WAITING_MAX", 20)
    with writing(tmp_path) as stand:
        stand.disk.code = errno.ENOSPC
        for number in range(50):
            stand.audit.record(event(number), actor="a")
        assert stand.audit.state.waiting <= 20
        lost = stand.audit.state.lost
        assert lost >= 30
        await in_state(stand.audit, "failing")
        stand.disk.code = 0
        await in_state(stand.audit, "recording")
        assert stand.audit.state.lost == lost
    gaps = [
        each["details"]["lost"] for each in entries(stand.place) if each["event"] == "audit.gap"
    ]
    assert sum(gaps) == lost
    assert len(entries(stand.place)) == 50 - lost + len(gaps)
    good(stand.place)


async def test_a_disk_that_does_not_answer_holds_nobody_who_must_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "DURABLE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(writer_module, "SLOW_DISK_S", 0.1)
    monkeypatch.setattr(writer_module, "CLOSE_TIMEOUT_S", 0.2)
    with writing(tmp_path) as stand:
        stand.disk.may_go.clear()
        stand.audit.record(event(1), actor="a")
        assert await trio.to_thread.run_sync(stand.disk.is_stuck.wait, 10)
        begun_s = time.perf_counter()
        for number in range(2000):
            stand.audit.record(event(number), actor="a")
        assert time.perf_counter() - begun_s < 1
        with pytest.raises(AuditError, match="the disk has not answered"):
            await stand.audit.record_durably(DEED, actor="a")
        await in_state(stand.audit, "failing")
        assert "has not answered" in stand.audit.state.reason
        assert not stand.audit.close()  # it does not wait for ever
        stand.disk.may_go.set()
        await until(lambda: not stand.audit._thread.is_alive())
    good(stand.place)


async def test_who_gives_up_waiting_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    with writing(tmp_path) as stand:
        stand.disk.may_go.clear()
        with trio.move_on_after(0.05):
            await stand.audit.record_durably(event(1), actor="a")
        stand.disk.may_go.set()
        await stand.audit.record_durably(event(2), actor="a")
    assert len(entries(stand.place)) == 2


async def test_a_disk_that_is_nearly_full_is_told_once_and_a_new_file_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trail, "free_bytes", lambda _trail: (1000, 1_000_000))
    with writing(tmp_path) as stand:
        for number in range(3):
            await stand.audit.record_durably(event(number), actor="a")
            await in_state(stand.audit, "disk_low")
        assert stand.told("audit_disk_low") == 1
        monkeypatch.setattr(Trail, "free_bytes", lambda _trail: (900_000, 1_000_000))
        await stand.audit.record_durably(event(4), actor="a")
        await in_state(stand.audit, "recording")
    rotated = [each for each in entries(stand.place) if each["event"] == "audit.rotated"]
    assert [each["details"]["reason"] for each in rotated] == ["disk_low"]


async def test_a_folder_that_cannot_be_made_is_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("in the way")
    log = LogLines()
    with open_audit(AuditConfig(), place_in(tmp_path), log) as opened:
        audit = opened.audit
        audit.record(event(1), actor="a")
        await in_state(audit, "failing")
        (tmp_path / "audit").unlink()
        await in_state(audit, "recording")
    assert len(entries(place_in(tmp_path))) == 1


async def test_an_audit_log_that_is_off_records_nothing_and_says_so(tmp_path: Path) -> None:
    log = LogLines()
    with open_audit(AuditConfig(enabled=False), place_in(tmp_path), log) as opened:
        audit = opened.audit
        audit.record(event(1), actor="a")
        await audit.record_durably(event(2), actor="a")
        await in_state(audit, "off")
    assert not list(tmp_path.iterdir())
    assert log.lines[0][1] == "audit_off"


async def test_a_seal_without_its_secret_is_a_bad_configuration(tmp_path: Path) -> None:
    config = AuditConfig(secret_file=str(tmp_path / "none"))
    with (
        pytest.raises(ConfigError, match=r"secret file .* cannot be opened"),
        open_audit(config, place_in(tmp_path), LogLines()),
    ):
        raise AssertionError("it was opened")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_bug_in_the_thread_is_told_and_refuses_deeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "DURABLE_TIMEOUT_S", 5.0)
    with writing(tmp_path) as stand:
        monkeypatch.setattr(Trail, "append", lambda _trail, _notes: 1 / 0)
        with pytest.raises(AuditError, match="a bug has ended it"):
            await stand.audit.record_durably(DEED, actor="a")
        await in_state(stand.audit, "failing")
        assert stand.told("audit_stopped") == 1
        with pytest.raises(AuditError, match="a bug has ended it"):
            await stand.audit.record_durably(DEED, actor="a")
