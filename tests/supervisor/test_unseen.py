"""While nobody can be looked for, nothing ends of it, and the next start is left its records."""

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest

from rbee.supervisor.adopted import Adopted
from rbee.supervisor.cgroup import Group
from rbee.supervisor.custody import Custody
from rbee.supervisor.instance import Instance
from rbee.supervisor.kin import Kin
from rbee.supervisor.limits import Holding, Limits
from rbee.supervisor.records import read_records
from tests.supervisor.fakes import NoLog


class Notes:
    was_removed = False

    def write(self, _identity: object) -> None:
        return

    def remove(self) -> None:
        self.was_removed = True


def no_descriptor(*_: object) -> list[int]:
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_worker_whose_kin_cannot_be_seen_keeps_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kin, notes = Kin("unseen/0", Group(())), Notes()
    custody = Custody(kin, Limits(), Holding("", "", ""), Adopted(), notes, lambda _survivors: None)
    monkeypatch.setattr("rbee.supervisor.kin.find_marked", no_descriptor)
    assert custody.living() == []
    custody.kill()
    [told] = custody.release()
    assert "Too many open files" in told
    assert not notes.was_removed


def test_a_look_that_can_be_made_again_shows_that_nobody_stayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kin, notes = Kin("unseen/1", Group(())), Notes()
    custody = Custody(kin, Limits(), Holding("", "", ""), Adopted(), notes, lambda _survivors: None)
    with monkeypatch.context() as patched:
        patched.setattr("rbee.supervisor.kin.find_marked", no_descriptor)
        custody.kill()
        assert custody.living() == []
        assert custody.is_unsure
    assert custody.living() == []
    assert not custody.is_unsure
    assert custody.release() == []
    assert notes.was_removed


def test_a_group_that_could_be_taken_away_shows_that_nobody_stayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, notes = tmp_path / "group", Notes()
    folder.mkdir()
    kin = Kin("unseen/2", Group([folder]))
    custody = Custody(kin, Limits(), Holding("", "", ""), Adopted(), notes, lambda _survivors: None)
    monkeypatch.setattr("rbee.supervisor.cgroup.group.folders_from", no_descriptor)
    assert custody.living() == []
    assert custody.is_unsure
    assert custody.release() == []
    assert notes.was_removed
    assert not folder.exists()


def test_a_group_that_cannot_be_looked_into_is_taken_away_if_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    (full / "below").mkdir(parents=True)
    monkeypatch.setattr("rbee.supervisor.cgroup.group.folders_from", no_descriptor)
    assert Group([empty, full]).remove() == [full]
    assert not empty.exists()


def test_a_supervisor_that_cannot_look_for_strays_at_its_end_keeps_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = NoLog()
    monkeypatch.setattr("rbee.supervisor.instance.CLOSE_TIMEOUT_S", 0.05)
    with Instance(tmp_path, (), {}, log) as instance:
        monkeypatch.setattr(instance.adopted, "_all", no_descriptor)
    assert [each.instance for each in read_records(tmp_path).instances] == [instance.name]
    assert "strays_not_seen" in [event for event, _ in log.events]
    assert not instance.close()


def test_a_look_for_strays_that_fails_once_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, kill = NoLog(), Mock(side_effect=[OSError(errno.EMFILE, "Too many open files"), []])
    with Instance(tmp_path, (), {}, log) as instance:
        monkeypatch.setattr(instance.adopted, "kill", kill)
    assert instance.close()
    assert kill.call_count == 2
    assert [event for event, _ in log.events] == ["limits"]
    assert not read_records(tmp_path).instances


def test_strays_that_outlive_sigkill_are_not_told_as_killed_and_the_next_start_knows_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, looks = NoLog(), [[7, 8], [7]]
    monkeypatch.setattr("rbee.supervisor.instance.CLOSE_TIMEOUT_S", 0.05)
    with Instance(tmp_path, (), {}, log) as instance:
        monkeypatch.setattr(
            instance.adopted, "kill", lambda: looks.pop(0) if len(looks) > 1 else looks[0]
        )
    told = {event: fields["pids"] for event, fields in log.events if event.startswith("strays_")}
    assert told == {"strays_killed": [8], "strays_unkillable": [7]}
    assert not instance.close()
    assert [each.instance for each in read_records(tmp_path).instances] == [instance.name]
