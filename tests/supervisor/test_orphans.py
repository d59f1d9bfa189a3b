"""What an earlier supervisor left is recognised by identity, ended and forgotten."""

import json
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rbee.supervisor import orphans
from rbee.supervisor.cgroup import Ground, own_places
from rbee.supervisor.kin import MARK_NAME, is_alive
from rbee.supervisor.orphans import sweep
from rbee.supervisor.records import (
    InstanceRecord,
    WorkerRecord,
    read_records,
    this_machine,
    write_record,
)
from tests.supervisor.held import (
    DAEMON,
    go,
    identity_of,
    need,
    opened_ground,
    read_pids,
    running,
    wait_dead,
)


def instance_record(*folders: Path) -> InstanceRecord:
    return InstanceRecord(secrets.token_hex(4), this_machine(), tuple(map(str, folders)))


def worker_record(instance: str, pid: int) -> WorkerRecord:
    identity = identity_of(pid)
    return WorkerRecord(instance, this_machine(), "w-0", "a1", identity.pid, identity.start_ticks)


def test_a_worker_that_was_left_is_killed_and_its_record_goes(tmp_path: Path) -> None:
    instance = instance_record()
    mark = {MARK_NAME: f"{instance.instance}/a1"}
    with running("input()", environment=mark) as process:
        write_record(tmp_path, instance)
        write_record(tmp_path, worker_record(instance.instance, process.pid))
        swept = sweep(tmp_path)
        assert process.wait(10) == -signal.SIGKILL
        assert swept.killed == (process.pid,)
        assert (swept.unkillable, swept.folders_left, swept.problems) == ((), (), ())
    assert list(tmp_path.iterdir()) == []


def test_what_outlives_sigkill_is_not_told_as_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one that hangs in a driver: no signal reaches it.
    monkeypatch.setattr(orphans, "kill_identity", lambda _identity, _is_meant: True)
    monkeypatch.setattr(orphans, "GONE_TIMEOUT_S", 0.05)
    instance = instance_record()
    with running("input()", environment={MARK_NAME: f"{instance.instance}/a1"}) as process:
        monkeypatch.setattr(orphans, "kill_marked", lambda _is_meant: [process.pid])
        write_record(tmp_path, instance)
        write_record(tmp_path, worker_record(instance.instance, process.pid))
        swept = sweep(tmp_path)
        assert (swept.killed, swept.unkillable) == ((), (process.pid,))
    assert len(list(tmp_path.iterdir())) == 2, "the next start is to know of it"


def test_a_worker_that_was_killed_before_its_record_was_written_is_found_by_its_mark(
    tmp_path: Path,
) -> None:
    instance = instance_record()
    write_record(tmp_path, instance)
    with running("input()", environment={MARK_NAME: f"{instance.instance}/a1"}) as process:
        assert sweep(tmp_path).killed == (process.pid,)
        assert process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "change",
    [
        lambda record: replace(record, start_ticks=record.start_ticks - 1),
        lambda record: replace(record, where="another boot"),
        lambda record: replace(record, where=this_machine() + "0"),
    ],
    ids=["recycled pid", "before a reboot", "another pid namespace"],
)
def test_a_record_that_means_somebody_else_touches_nobody(
    change: Callable[[WorkerRecord], WorkerRecord], tmp_path: Path
) -> None:
    with running("input()") as process:
        write_record(tmp_path, change(worker_record("dead", process.pid)))
        assert sweep(tmp_path).killed == ()
        assert is_alive(identity_of(process.pid))
    assert list(tmp_path.iterdir()) == [], "what means nobody is forgotten"


def test_a_worker_of_another_supervisor_is_not_touched_even_at_the_same_pid(
    tmp_path: Path,
) -> None:
    with running("input()", environment={MARK_NAME: "living/a1"}) as process:
        write_record(tmp_path, worker_record("dead", process.pid))
        sweep(tmp_path)
        assert is_alive(identity_of(process.pid))


def test_a_daemon_without_its_mark_is_found_in_the_cgroup(tmp_path: Path) -> None:
    with opened_ground(own_places()) as ground:
        need(ground.means.kill, "cgroup to kill by")
        name = ground.folders[0].name.removeprefix("rbee-")
        write_record(tmp_path, InstanceRecord(name, this_machine(),
                                              tuple(map(str, ground.folders))))  # fmt: skip
        group = ground.group("one")
        group.make()
        read_end, write_end = os.pipe()
        with running(DAEMON, str(write_end)) as process:
            group.admit(process.pid)
            go(process)
            [daemon] = [identity_of(pid) for pid in read_pids(read_end, 1)]
            swept = sweep(tmp_path)
            wait_dead(daemon)
            assert daemon.pid in swept.killed
            assert swept.folders_left == ()
        os.close(read_end)
        os.close(write_end)
        assert not any(folder.exists() for folder in ground.folders)


def test_only_cgroups_that_bear_the_instances_name_are_touched(tmp_path: Path) -> None:
    with opened_ground(own_places()) as ground:
        need(ground.means.kill, "cgroup to kill by")
        group = ground.group("one")
        group.make()
        with running("input()") as process:
            group.admit(process.pid)
            write_record(tmp_path, instance_record(*ground.folders))
            assert sweep(tmp_path).killed == ()
            assert group.pids() == [process.pid]


def test_the_warden_sweeps_one_instance_and_leaves_the_next_ones_records(tmp_path: Path) -> None:
    old, new = instance_record(), instance_record()
    for record in (old, new):
        write_record(tmp_path, record)
    with running("input()", environment={MARK_NAME: f"{new.instance}/b2"}) as process:
        write_record(tmp_path, worker_record(new.instance, process.pid))
        assert sweep(tmp_path, old).killed == ()
        assert is_alive(identity_of(process.pid))
        assert {path.name for path in tmp_path.iterdir()} == {new.name, "worker-a1.json"}


@pytest.mark.parametrize("is_dir_there", [False, True], ids=["no directory", "no records"])
def test_what_one_supervisor_left_is_ended_although_its_records_were_deleted(
    is_dir_there: bool, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    if is_dir_there:
        run_dir.mkdir()
    one = instance_record()
    with running("input()", environment={MARK_NAME: f"{one.instance}/a1"}) as process:
        swept = sweep(run_dir, one)
        assert process.wait(10) == -signal.SIGKILL
    assert swept.killed == (process.pid,)
    assert swept.problems == (() if is_dir_there else (f"{run_dir}: No such file or directory",))


def test_a_daemon_without_its_mark_is_found_in_the_cgroup_although_the_records_were_deleted(
    tmp_path: Path,
) -> None:
    with opened_ground(own_places()) as ground:
        need(ground.means.kill, "cgroup to kill by")
        name = ground.folders[0].name.removeprefix("rbee-")
        group = ground.group("one")
        group.make()
        with running("input()") as process:
            group.admit(process.pid)
            one = InstanceRecord(name, this_machine(), tuple(map(str, ground.folders)))
            assert sweep(tmp_path / "gone", one).killed == (process.pid,)
            assert process.wait(10) == -signal.SIGKILL
        assert not any(folder.exists() for folder in ground.folders)


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "{}", '{"instance": 7}', '{"instance": "x", "more": 1}',
     json.dumps({"instance": "i", "where": "w", "worker_id": "w", "spawn": "s",
                 "pid": "1", "start_ticks": 2})],
)  # fmt: skip
def test_half_a_record_is_told_and_does_not_stop_the_start(text: str, tmp_path: Path) -> None:
    (tmp_path / "worker-a1.json").write_text(text)
    (tmp_path / "instance-b2.json").write_text(text)
    swept = sweep(tmp_path)
    assert [problem.partition(":")[0] for problem in swept.problems] == [
        "instance-b2.json", "worker-a1.json",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "lock").touch()
    assert read_records(tmp_path).files == ()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.json", "lock"}


def test_a_record_that_cannot_be_written_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_record(tmp_path / "gone", instance_record())
    record = instance_record()
    write_record(tmp_path, record)
    assert [path.name for path in tmp_path.iterdir()] == [record.name]
    assert read_records(tmp_path).instances == (record,)


def test_a_ground_names_its_folders_before_it_makes_them() -> None:
    ground = Ground("abc", own_places())
    assert all(folder.name == "rbee-abc" and not folder.exists() for folder in ground.folders)
