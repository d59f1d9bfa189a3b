"""What the store keeps of the audit log: older files put back with their anchor are found."""

import shutil
from pathlib import Path

import pytest
import trio

from rbee.audit.anchor import read_anchor
from rbee.audit.events import ConfigRejected
from rbee.audit.opening import open_audit
from rbee.audit.place import Place, place_in
from rbee.audit.reading import verify
from rbee.audit.verify import FlawKind
from rbee.audit.witness import Witness
from rbee.config import AuditConfig
from rbee.store import open_store
from tests.api.face import LogLines
from tests.audit.log import KEY, entries, events, good, note, trail_in, write_log


def make_store(state_dir: Path) -> None:
    state_dir.mkdir(exist_ok=True)
    store = open_store(place_in(state_dir).store)
    assert store is not None
    store.close()


def roll_back(state_dir: Path, older: Path) -> Place:
    """Put back the log and its anchor; the store stays."""
    place, old = place_in(state_dir), place_in(older)
    shutil.rmtree(place.folder)
    shutil.copytree(old.folder, place.folder)
    shutil.copy(old.anchor, place.anchor)
    return place


@pytest.fixture
def rolled_back(tmp_path: Path) -> Place:
    make_store(tmp_path / "now")
    write_log(tmp_path / "now", 10, key=KEY)
    shutil.copytree(tmp_path / "now", tmp_path / "then")
    good(write_log(tmp_path / "now", 10, key=KEY))
    return roll_back(tmp_path / "now", tmp_path / "then")


def test_older_files_put_back_with_their_anchor_are_found_at_the_first_entry_that_is_gone(
    rolled_back: Place,
) -> None:
    flaw = verify(rolled_back, [KEY]).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.CUT_OFF, 11)
    assert "the store knows 20" in flaw.what


def test_a_server_that_takes_them_up_tells_the_damage(rolled_back: Place) -> None:
    write_log(rolled_back.folder.parent, 1, key=KEY)
    assert events(rolled_back)[10:] == ["audit.damaged", "limit.exceeded"]
    assert entries(rolled_back)[10]["seq"] == 21
    assert entries(rolled_back)[10]["details"]["reason"] == "the log ends with entry 10, and had 20"


def test_another_log_in_its_place_is_found(tmp_path: Path) -> None:
    make_store(tmp_path / "now")
    write_log(tmp_path / "now", 10)
    trail = trail_in(tmp_path / "other")
    trail.append([note(number) for number in range(100, 115)])
    trail.sync()
    trail.anchor()
    trail.close()
    flaw = verify(roll_back(tmp_path / "now", tmp_path / "other")).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.REPLACED, 10)
    assert flaw.what.startswith("the store knows another")


def test_a_witness_that_is_behind_is_no_flaw(tmp_path: Path) -> None:
    make_store(tmp_path)
    place = write_log(tmp_path, 5)
    trail = trail_in(tmp_path)
    trail.append([note(6)])
    trail.sync()
    trail.anchor()
    trail.close()  # killed before the store was told
    assert good(place).witnessed_seq == 5
    good(write_log(tmp_path, 1))


def test_an_earlier_anchor_takes_no_later_ones_place(tmp_path: Path) -> None:
    make_store(tmp_path)
    place = write_log(tmp_path, 5)
    early = read_anchor(place.anchor)
    assert early is not None
    write_log(tmp_path, 5)
    witness = Witness(place.store)
    witness.tell(early)
    known = witness.anchor()
    witness.close()
    assert known is not None
    assert known.seq == 10


def test_a_store_that_is_put_aside_is_told_again_and_none_is_made(tmp_path: Path) -> None:
    make_store(tmp_path)
    place = write_log(tmp_path, 5)
    anchor = read_anchor(place.anchor)
    assert anchor is not None
    witness = Witness(place.store)
    assert witness.anchor() == anchor
    place.store.rename(tmp_path / "aside")
    witness.tell(anchor)
    assert not place.store.exists()
    assert (witness.anchor(), witness.problem) == (None, "")
    make_store(tmp_path)
    witness.tell(anchor)
    assert witness.anchor() == anchor
    witness.close()


async def test_the_server_tells_the_store_when_it_ends(tmp_path: Path) -> None:
    make_store(tmp_path)
    with open_audit(AuditConfig(), place_in(tmp_path), LogLines()) as opened:
        audit = opened.audit
        for _ in range(3):
            await audit.record_durably(ConfigRejected(problem="x"), actor="a")
    assert good(place_in(tmp_path)).witnessed_seq == 3


async def test_the_store_is_told_soon_where_nothing_more_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.audit.writer.WITNESS_S", 0.01)
    make_store(tmp_path)
    witness = Witness(place_in(tmp_path).store)
    with open_audit(AuditConfig(), place_in(tmp_path), LogLines()) as opened:
        audit = opened.audit
        await audit.record_durably(ConfigRejected(problem="x"), actor="a")
        with trio.fail_after(5):
            while (known := witness.anchor()) is None or known.seq < 1:
                await trio.sleep(0.01)
    witness.close()


async def test_a_broken_store_is_told_once_and_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.audit.writer.WITNESS_S", 0.0)
    place = place_in(tmp_path)
    place.store.write_bytes(b"no database at all")
    place.store.chmod(0o600)
    log = LogLines()
    with open_audit(AuditConfig(sync_s=0.01), place, log) as opened:
        audit = opened.audit
        for _ in range(3):
            await audit.record_durably(ConfigRejected(problem="x"), actor="a")
    assert [line[1] for line in log.lines].count("audit_unwitnessed") == 1
    assert good(place).entries == 3
