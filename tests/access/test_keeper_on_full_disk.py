"""No start on a disk that is full opens a door, nor shuts one for good that nobody had locked."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from rbee.store import open_store
from rbee.store.database import empty_store
from tests.access.house import House, kept, row
from tests.small_disk import fill, small_disk


@contextmanager
def lock_held(folder: Path) -> Iterator[None]:
    """Keep all others from making a store in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


async def test_a_store_that_is_begun_on_a_full_disk_locks_nobody_out_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path) as disk:
        filler = fill(disk)
        async with kept(disk / "rbee.db", monkeypatch) as house:
            assert house.ring.is_required, "it has not been looked into yet"
            await trio.sleep(0.05)
            assert house.ring.is_required
            filler.unlink()
            await house.wait(lambda: house.keeper.state == "ok")
            assert not house.ring.is_required
            assert [(name, line.get("keys_required")) for _, name, line in house.log.lines] == [
                ("store_unavailable", None), ("store_available", False), ("no_keys", None),
            ]  # fmt: skip
            await house.keeper.add(row())
            assert house.ring.is_required


async def test_a_disk_that_stays_full_over_several_starts_locks_nobody_out_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path) as disk:
        filler = fill(disk)
        for _ in range(2):
            async with kept(disk / "rbee.db", monkeypatch) as house:
                assert house.ring.is_required
                assert house.keeper.state == "unavailable"
            assert list(disk.iterdir()) == [filler], "nothing that a later start would take for one"
        async with kept(disk / "rbee.db", monkeypatch) as house:
            assert house.ring.is_required
            filler.unlink()
            await house.wait(lambda: house.keeper.state == "ok")
            assert not house.ring.is_required
            assert len(house.log.of("no_keys")) == 1


async def test_a_disk_with_room_for_the_store_alone_locks_nobody_out_once_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path) as disk:
        path, filler = disk / "rbee.db", fill(disk)
        os.truncate(filler, filler.stat().st_size - len(empty_store()))
        for _ in range(2):
            async with kept(path, monkeypatch) as house:
                assert house.ring.is_required
                assert house.keeper.state == "unavailable"
            assert path.exists()
        async with kept(path, monkeypatch) as house:
            filler.unlink()
            await house.wait(lambda: house.keeper.state == "ok")
            assert not house.ring.is_required


async def test_a_store_that_is_begun_on_a_full_disk_is_made_later_also_where_keys_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path) as disk:
        filler = fill(disk)
        async with kept(disk / "rbee.db", monkeypatch, is_required=True) as house:
            filler.unlink()
            await house.wait(lambda: house.keeper.state == "ok")
            assert house.ring.is_required


async def test_a_store_that_another_process_makes_right_now_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rbee.db"
    monkeypatch.setattr("rbee.store.making.LOCK_TIMEOUT_S", 0.01)
    with lock_held(path.parent):
        house = House(path)
        assert house.ring.is_required, "it may be made for a key"
        house.keeper.close()
    async with kept(path, monkeypatch) as house:
        assert house.keeper.state == "ok"
        assert not house.ring.is_required


@pytest.mark.parametrize("finds", ["a key", "keys were lost"])
async def test_a_store_that_is_begun_on_a_full_disk_opens_no_door_where_there_may_be_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finds: str
) -> None:
    with small_disk(tmp_path) as disk:
        filler, path = fill(disk), disk / "rbee.db"
        async with kept(path, monkeypatch) as house:
            other = open_store(made := tmp_path / "rbee.db")
            assert other is not None
            with other:
                if finds == "a key":
                    other.keys.add(row())
                else:
                    other.keys.note_lost("rbee.db.corrupt")
            with lock_held(disk):
                filler.unlink()
                shutil.copy(made, path)
            await house.wait(lambda: house.keeper.state in {"ok", "replaced"})
            (told,) = house.log.of("store_available")
            assert told["keys_required"]
            assert house.ring.is_required
            assert house.log.of("no_keys") == []


async def test_a_broken_store_that_is_set_aside_on_a_full_disk_opens_no_door_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path) as disk:
        path = disk / "rbee.db"
        path.write_bytes(b"this is no database" * 100)
        path.chmod(0o600)
        filler = fill(disk)
        async with kept(path, monkeypatch) as house:
            assert house.ring.is_required
            assert len(house.log.of("store_replaced")) == 1
        async with kept(path, monkeypatch) as house:
            assert house.ring.is_required
            filler.unlink()
            await house.wait(lambda: house.keeper.state == "replaced")
            assert house.ring.is_required
        async with kept(path, monkeypatch) as house:
            assert house.ring.is_required
            assert house.keeper.state == "replaced"


@pytest.mark.parametrize("is_full", [True, False])
async def test_a_store_that_was_cut_to_nothing_is_set_aside_and_opens_no_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    with small_disk(tmp_path) as disk:
        path = disk / "rbee.db"
        async with kept(path, monkeypatch) as house:
            await house.keeper.add(row())
        os.truncate(path, 0)
        filler = fill(disk) if is_full else disk / "filler"
        async with kept(path, monkeypatch) as house:
            assert house.ring.is_required
            (told,) = house.log.of("store_replaced")
            assert Path(told["aside"]).stat().st_size == 0
            filler.unlink(missing_ok=True)
            await house.wait(lambda: house.keeper.state == "replaced")
            assert house.ring.is_required
        async with kept(path, monkeypatch) as house:
            assert house.ring.is_required
