"""The run directory: ours, closed to others, held by one supervisor, gone at the end."""

import os
import shutil
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from rbee.errors import RunDirError
from rbee.run_place import default_run_dir
from rbee.supervisor.instance import MEND_EVERY_S, Instance, keep_run_dir
from rbee.supervisor.run_dir import RunDir
from tests.supervisor.fakes import NoLog


def test_it_is_made_closed_to_others_and_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    with RunDir(path):
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path / "lock").read_text().strip() == str(os.getpid())
    assert not path.exists()


def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with RunDir(tmp_path / "run"), pytest.raises(RunDirError, match=f"pid {os.getpid()}"):
        RunDir(tmp_path / "run").__enter__()
    with RunDir(tmp_path / "run"):
        assert (tmp_path / "run").exists()


def test_sockets_of_a_killed_supervisor_are_swept_and_other_files_left(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path / "w-stale"))
    (path / "notes.txt").write_text("not ours")
    with RunDir(path):
        assert sorted(entry.name for entry in path.iterdir()) == ["lock", "notes.txt"]
    assert [entry.name for entry in path.iterdir()] == ["notes.txt"]


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(0o755)
    with pytest.raises(RunDirError, match="closed to others"):
        RunDir(path).__enter__()


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(RunDirError, match="not a directory"):
        RunDir(tmp_path / "run").__enter__()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirError, match="run"):
        RunDir(tmp_path / "run").__enter__()


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="bytes a socket allows"):
        RunDir(tmp_path / ("x" * 100)).__enter__()


def test_the_default_is_in_the_sessions_runtime_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_run_dir() == Path("/run/user/1000/rbee")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_run_dir() in (Path("/run/rbee"), Path(f"/tmp/rbee-{os.geteuid()}"))


def test_one_that_was_deleted_is_made_again_and_held(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunDir(path) as run_dir:
        assert not run_dir.mend()
        (path / "lock").unlink()
        path.rmdir()
        assert run_dir.mend()
        assert path.stat().st_mode & 0o777 == 0o700
        with pytest.raises(RunDirError, match=f"pid {os.getpid()}"):
            RunDir(path).__enter__()
    assert not path.exists()


def test_sockets_of_workers_that_start_meanwhile_are_left_where_it_is_mended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run"
    with RunDir(path) as run_dir, socket.socket(socket.AF_UNIX) as ours:
        (path / "lock").unlink()
        ours.bind(str(path / "w-1"))
        assert run_dir.mend()
        assert (path / "w-1").exists()
        (path / "w-1").unlink()


def test_one_that_another_has_made_again_is_not_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunDir(path) as run_dir:
        (path / "lock").unlink()
        with RunDir(path), pytest.raises(RunDirError, match="is held by another"):
            run_dir.mend()


def test_one_that_another_has_made_again_stays_his_at_our_end(tmp_path: Path) -> None:
    path = tmp_path / "run"
    ours, his = RunDir(path), RunDir(path)
    with ours:
        shutil.rmtree(path)
        his.__enter__()
    with pytest.raises(RunDirError, match="is held by another"):
        RunDir(path).__enter__()
    his.__exit__(None, None, None)
    assert not path.exists()


@pytest.mark.parametrize("deleted", ["the directory", "the record"])
async def test_what_was_deleted_is_there_again_before_the_next_worker_starts(
    deleted: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    path, log = tmp_path / "run", NoLog()
    with RunDir(path) as run_dir, Instance(path, (), {}, log, mend_run_dir=run_dir.mend) as ours:
        [record] = path.glob("instance-*.json")
        if deleted == "the directory":
            shutil.rmtree(path)
        else:
            record.unlink()
        with trio.move_on_after(3 * MEND_EVERY_S):
            await keep_run_dir(ours, log)
        assert record.exists()
        with pytest.raises(RunDirError, match="is held by another"):
            RunDir(path).__enter__()
    assert [event for event, _ in log.events].count("run_dir_mended") == 1
    assert not path.exists()


async def test_one_that_another_has_taken_is_told_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path, log = tmp_path / "run", NoLog()
    with RunDir(path) as run_dir, Instance(path, (), {}, log, mend_run_dir=run_dir.mend) as ours:
        (path / "lock").unlink()
        with RunDir(path), trio.move_on_after(3 * MEND_EVERY_S):
            await keep_run_dir(ours, log)
    [told] = [fields for event, fields in log.events if event == "run_dir_lost"]
    assert "is held by another" in told["problem"]
