"""The keyring is as the store is: also when a command changes it beside us, or it is broken."""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from rbee.errors import KeysFullError, StoreError
from rbee.store import open_store
from rbee.store.database import Database
from tests.access.house import kept, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rbee.db"


async def test_an_empty_store_asks_for_no_key_and_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        assert path.exists()
        assert not house.ring.is_required
        assert house.keeper.state == "ok"
        assert house.keeper.rows() == []


async def test_what_is_done_through_it_holds_at_once_and_is_not_recorded_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        old, new = row(), row()
        await house.keeper.add(old)
        assert house.ring.is_required
        assert house.ring.find(old.id) is not None
        await house.keeper.replace(old.id, new, retired_s=2_000_000_000, reason="new")
        assert house.keeper.row(old.id) is not None
        assert await house.keeper.revoke(new.id, 5, "why")
        key = house.ring.find(new.id)
        assert key is not None
        assert key.is_revoked
        assert not await house.keeper.revoke(new.id, 6, "again")
        await trio.sleep(0.05)
        assert house.audit.heard == [], "who asked for it has recorded it"


async def test_what_another_process_does_is_seen_and_recorded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        other = open_store(path)
        assert other is not None
        with other:
            key = row(models=("one",))
            other.keys.add(key)
            await house.wait(lambda: house.ring.find(key.id) is not None)
            assert house.ring.is_required
            other.keys.revoke(key.id, 5, "lost")
            await house.wait(lambda: bool(house.audit.of("key.revoked")))
            old, new = row(expires_s=2_000), row()
            other.keys.add(old)
            other.keys.replace(old.id, new, retired_s=3_000, reason=f"rotated to {new.id}")
            await house.wait(lambda: len(house.audit.heard) == 5)
        revoked, retired = house.audit.of("key.revoked")
        created, *others = house.audit.of("key.created")
        assert (created.key, created.models) == (key.id, ("one",))
        assert (revoked.key, revoked.reason) == (key.id, "lost")
        assert {each.key for each in others} == {old.id, new.id}
        assert (retired.key, retired.reason) == (old.id, f"rotated to {new.id}")
        assert {actor for actor, _, _ in house.audit.heard} == {f"operator:{os.geteuid()}"}


async def test_a_command_in_a_process_of_its_own_is_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        command = ["-m", "rbee", "keys", "create", "--role", "user", "--state-dir"]
        await trio.run_process(
            [sys.executable, *command, str(path.parent)], capture_stdout=True, capture_stderr=True
        )
        await house.wait(lambda: len(house.ring) == 1)


async def test_keys_of_an_earlier_start_are_there_and_not_recorded_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        await house.keeper.add(row(revoked_s=4))
    async with kept(path, monkeypatch) as house:
        assert len(house.ring) == 1
        assert house.ring.is_required
        assert not house.ring.has_usable_keys(0.0)
        assert house.audit.heard == []


async def test_a_broken_store_is_set_aside_and_opens_no_door(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"this is no database" * 100)
    path.chmod(0o600)
    async with kept(path, monkeypatch) as house:
        assert house.ring.is_required
        assert house.keeper.state == "replaced"
        (told,) = house.log.of("store_replaced")
        assert Path(told["aside"]).read_bytes().startswith(b"this is no database")
        key = row()
        await house.keeper.add(key)
        assert house.ring.find(key.id) is not None
    async with kept(path, monkeypatch) as house:
        assert house.ring.is_required
        assert house.keeper.state == "replaced"
        assert house.log.of("store_replaced") == []


async def test_a_store_that_cannot_be_used_at_the_start_opens_no_door_and_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        await house.keeper.add(row())
    path.chmod(0o644)
    async with kept(path, monkeypatch) as house:
        assert house.ring.is_required
        assert house.keeper.state == "unavailable"
        with pytest.raises(StoreError):
            await house.keeper.add(row())
        path.chmod(0o600)
        await house.wait(lambda: len(house.ring) == 1)
        assert house.keeper.state == "ok"
        assert [name for _, name, _ in house.log.lines] == ["store_unavailable", "store_available"]
        assert house.audit.heard == []


async def test_a_store_that_could_not_be_read_and_is_taken_away_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        await house.keeper.add(row())
    path.chmod(0o644)
    async with kept(path, monkeypatch) as house:
        path.rename(away := path.with_name("away.db"))
        await trio.sleep(0.05)
        assert not path.exists()
        assert house.keeper.state == "unavailable"
        assert house.ring.is_required
        open_store(path).close()  # type: ignore[union-attr]  # as a command would, meanwhile
        await house.wait(lambda: house.keeper.state == "ok")
        assert house.ring.is_required, "what was in the one that is away was not seen"
        away.chmod(0o600)
        away.rename(path)
        await house.wait(lambda: len(house.ring) == 1)


async def test_a_folder_that_cannot_be_written_is_told_and_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    async with kept(tmp_path / "file" / "rbee.db", monkeypatch) as house:
        assert not house.ring.is_required
        assert house.keeper.state == "unavailable"
        await trio.sleep(0.05)
        assert len(house.log.of("store_unavailable")) == 1


async def test_a_store_that_is_deleted_or_locked_costs_no_key_that_is_known(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.store.database.BUSY_TIMEOUT_S", 0.01)
    async with kept(path, monkeypatch) as house:
        key = row()
        await house.keeper.add(key)
        away = path.with_name("away.db")
        path.rename(away)
        with pytest.raises(StoreError):
            await house.keeper.revoke(key.id, 5, "")
        await house.wait(lambda: house.keeper.state == "unavailable")
        assert house.ring.find(key.id) is not None
        assert house.ring.is_required
        assert not path.exists(), "an empty one in its place would forget all keys"
        away.rename(path)
        await house.wait(lambda: house.keeper.state == "ok")
        assert await house.keeper.revoke(key.id, 5, "")


async def test_a_key_that_is_none_is_told_and_the_others_are_good(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        bad, good = row(role="king"), row()
        await house.keeper.add(bad)
        await house.keeper.add(good)
        assert {each["key"] for each in house.log.of("key_unusable")} == {bad.id}
        assert house.ring.find(good.id) is not None


async def test_a_store_that_cannot_be_written_is_told_once_until_it_can_be(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.store.database.BUSY_TIMEOUT_S", 0.01)
    async with kept(path, monkeypatch) as house:
        known = row()
        await house.keeper.add(known)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for _ in range(2):
            with pytest.raises(StoreError):
                await house.keeper.add(row())
            assert house.keeper.state == "unavailable"
            await trio.sleep(0.1)
        assert house.keeper.state == "unavailable", "it can be read, and that is not enough"
        assert [name for _, name, _ in house.log.lines] == ["store_unavailable"]
        other.close()
        await house.wait(lambda: house.keeper.state == "ok")
        assert house.keeper.rows() == [known]
        await house.keeper.add(row())
        assert [name for _, name, _ in house.log.lines] == ["store_unavailable", "store_available"]


async def test_what_others_revoke_is_seen_also_while_the_server_cannot_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Database) -> NoReturn:
        raise StoreError("read-only, for this process")

    async with kept(path, monkeypatch) as house:
        known = row()
        await house.keeper.add(known)
        monkeypatch.setattr(Database, "writing", refuse)
        with pytest.raises(StoreError):
            await house.keeper.add(row())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE keys SET revoked_s = 5, revoked_for = 'lost'")
        key = house.ring.find(known.id)
        assert key is not None
        assert key.fault(0) == ""
        await house.wait(lambda: house.ring.find(known.id) != key)
        assert [each.reason for each in house.audit.of("key.revoked")] == ["lost"]
        assert house.keeper.state == "unavailable"
        assert [name for _, name, _ in house.log.lines] == ["store_unavailable"]


async def test_a_store_that_breaks_under_a_server_costs_no_key_that_is_known(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(path, monkeypatch) as house:
        known = row()
        await house.keeper.add(known)
    backup = path.read_bytes()
    async with kept(path, monkeypatch) as house:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("SELECT * FROM facts").fetchall()
        with path.open("r+b") as file:
            file.write(bytes(len(backup)))
        other.execute("PRAGMA user_version = 1")  # so that nobody goes on with pages in memory
        other.close()
        with pytest.raises(StoreError):
            await house.keeper.revoke(known.id, 5, "")
        await house.wait(lambda: house.keeper.state == "unavailable")
        await trio.sleep(0.1)
        assert house.keeper.state == "unavailable"
        assert house.ring.find(known.id) is not None
        assert house.ring.is_required
        (restored := path.with_name("restored.db")).write_bytes(backup)
        restored.chmod(0o600)
        restored.replace(path)
        await house.wait(lambda: house.keeper.state == "ok")
        assert await house.keeper.revoke(known.id, 5, "")
        assert [name for _, name, _ in house.log.lines] == ["store_unavailable", "store_available"]


async def test_a_full_list_of_keys_is_no_trouble_of_the_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.store.keys.KEYS_MAX", 1)
    async with kept(path, monkeypatch) as house:
        await house.keeper.add(row())
        with pytest.raises(KeysFullError):
            await house.keeper.add(row())
        assert house.keeper.state == "ok"
        assert house.log.lines == []
