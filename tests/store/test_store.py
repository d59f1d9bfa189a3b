"""The store: what it keeps, who else may see it, and what becomes of a broken one."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbee.errors import KeysFullError, StoreCorruptError, StoreError
from rbee.store import AuditHead, RevokedToken, keys, open_store, set_aside
from rbee.store.database import Database, read_through
from tests.e2e.injection import STRACE
from tests.store.stores import opened, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "rbee.db"


def test_a_key_comes_back_as_it_was_added_also_after_a_restart(path: Path) -> None:
    given = [row(), row("bbbbbbbb", expires_s=9, models=(), limits={}, created_s=1_001)]
    with opened(path) as store:
        for each in given:
            store.keys.add(each)
        assert store.keys.all() == given
    with opened(path) as store:
        assert store.keys.all() == given


def test_where_there_is_none_and_none_is_to_be_made_nothing_is_touched(path: Path) -> None:
    assert open_store(path, create=False) is None
    assert not path.parent.exists()


def test_the_files_are_ours_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as store:
            store.keys.add(row())
            files = list(path.parent.iterdir())
            assert {each.name for each in files} == {"rbee.db", "rbee.db-wal", "rbee.db-shm"}
            assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_file_that_is_open_to_others_is_refused(path: Path) -> None:
    opened(path).close()
    path.chmod(0o640)
    with pytest.raises(StoreError, match=r"must be closed to others \(0600\), found 0640"):
        open_store(path)


def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    opened(tmp_path / "else.db").close()
    path.parent.mkdir()
    path.symlink_to(tmp_path / "else.db")
    with pytest.raises(StoreError, match="must be a regular file"):
        open_store(path)


def test_in_the_folder_of_another_user_no_store_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(StoreError, match=f"belongs to uid {uid}: run the command as that user"):
        open_store(path)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened: Not a directory"):
        open_store(tmp_path / "file" / "rbee.db")


def test_revoking_happens_once(path: Path) -> None:
    with opened(path) as store:
        store.keys.add(row())
        assert store.keys.revoke("aaaaaaaa", 2_000, "lost")
        assert not store.keys.revoke("aaaaaaaa", 3_000, "again")
        assert not store.keys.revoke("unknown", 3_000, "")
        (found,) = store.keys.all()
        assert (found.revoked_s, found.revoked_for) == (2_000, "lost")


@pytest.mark.parametrize(("expires_s", "after_s"), [(None, 5_000), (9_000, 5_000), (4_000, 4_000)])
def test_a_replaced_key_expires_no_later_than_told(
    path: Path, expires_s: int | None, after_s: int
) -> None:
    with opened(path) as store:
        store.keys.add(row(expires_s=expires_s))
        successor = row("bbbbbbbb", created_s=2_000)
        store.keys.replace("aaaaaaaa", successor, retired_s=5_000, reason="new")
        old, new = store.keys.all()
        assert (old.expires_s, new.id, new.expires_s) == (after_s, "bbbbbbbb", None)
        assert (old.revoked_s, old.revoked_for, new.revoked_for) == (None, "new", "")


@pytest.mark.parametrize("later", ["", "lost", "newer"])
def test_a_replacement_is_undone_but_not_what_was_done_since(path: Path, later: str) -> None:
    with opened(path) as store:
        store.keys.add(before := row(expires_s=9_000))
        store.keys.replace("aaaaaaaa", row("bbbbbbbb"), retired_s=5_000, reason="new")
        if later == "lost":
            store.keys.revoke("aaaaaaaa", 3_000, later)
        if later == "newer":
            store.keys.replace("aaaaaaaa", row("cccccccc"), retired_s=4_000, reason=later)
        store.keys.put_back(before, "bbbbbbbb", reason="new", now_s=3_500, undone="not recorded")
        old, new, *_ = store.keys.all()
        assert (new.revoked_s, new.revoked_for) == (3_500, "not recorded")
        assert (old == before) == (not later)
        assert old.revoked_for == later


def test_a_key_of_an_id_that_is_there_is_not_kept_and_nothing_changes(path: Path) -> None:
    with opened(path) as store:
        store.keys.add(row())
        with pytest.raises(StoreError, match="UNIQUE"):
            store.keys.replace("aaaaaaaa", row(), retired_s=1, reason="new")
        assert store.keys.all() == [row()]


def test_keys_are_bounded_and_revoked_ones_are_forgotten_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    with opened(path) as store:
        store.keys.add(row())
        store.keys.add(row("bbbbbbbb"))
        store.keys.revoke("aaaaaaaa", 2_000, "")
        with pytest.raises(KeysFullError):
            store.keys.add(row("cccccccc", created_s=2_000 + keys.REVOKED_KEPT_S))
        store.keys.add(row("cccccccc", created_s=2_001 + keys.REVOKED_KEPT_S))
        assert [each.id for each in store.keys.all()] == ["bbbbbbbb", "cccccccc"]


def test_what_another_process_changes_shows_in_the_data_version(path: Path) -> None:
    with opened(path) as store:
        before = store.data_version()
        store.keys.add(row())
        assert store.data_version() == before, "a change of our own is none"
        code = (
            "import sys, pathlib; from rbee.store import open_store;"
            "open_store(pathlib.Path(sys.argv[1])).keys.revoke('aaaaaaaa', 5, '')"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
        assert store.data_version() != before
        assert store.keys.all()[0].revoked_s == 5


def test_a_store_that_another_holds_locked_is_an_error_in_time_and_can_be_used_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.store.database.BUSY_TIMEOUT_S", 0.01)
    with opened(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            store.keys.add(row())
        assert store.keys.all() == [], "reading goes on beside a writer"
        other.close()
        store.keys.add(row())


def test_it_may_be_used_from_several_threads_at_once(path: Path) -> None:
    with opened(path) as store:
        threads = [
            threading.Thread(target=lambda n=n: store.keys.add(row(f"{n:08d}"))) for n in range(8)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(store.keys.all()) == 8


def test_use_after_its_end_is_an_error_of_the_store(path: Path) -> None:
    store = opened(path)
    store.close()
    with pytest.raises(StoreError):
        store.keys.all()


def test_revoked_tokens_are_kept_until_they_expire(path: Path) -> None:
    tokens = [RevokedToken(issuer="i", jti=f"j{n}", expires_s=100 * n) for n in (1, 2)]
    with opened(path) as store:
        for each in [*tokens, tokens[1]]:
            store.revocations.add(each, now_s=1)
        assert store.revocations.all(now_s=1) == tokens
        assert store.revocations.all(now_s=100) == [tokens[1]]


def test_revoked_tokens_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.store.revocations.REVOCATIONS_MAX", 1)
    with opened(path) as store:
        store.revocations.add(RevokedToken(issuer="i", jti="a", expires_s=10), now_s=1)
        with pytest.raises(StoreError, match="as many as may be"):
            store.revocations.add(RevokedToken(issuer="i", jti="b", expires_s=10), now_s=9)
        store.revocations.add(RevokedToken(issuer="i", jti="b", expires_s=20), now_s=10)


def test_an_anchor_is_replaced_by_a_later_one_alone(path: Path) -> None:
    with opened(path) as store:
        assert store.anchors.get("audit") is None
        store.anchors.put("audit", AuditHead(seq=1, hash="a", first_seq=1))
        last = AuditHead(seq=2, hash="b", first_seq=1, seal="c")
        store.anchors.put("audit", last)
        assert store.anchors.get("audit") == last
        store.anchors.put("audit", AuditHead(seq=1, hash="a", first_seq=1))
        assert store.anchors.get("audit") == last


def test_a_broken_store_is_told_and_can_be_set_aside_with_all_that_belongs_to_it(
    path: Path,
) -> None:
    with opened(path) as store:
        store.keys.add(row())
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StoreCorruptError, match="is broken"):
        open_store(path)
    Path(f"{path}-wal").write_bytes(b"rest")
    aside = set_aside(path, 1_900_000_000.0)
    assert aside.name == "rbee.db.corrupt-20300317T174640Z"
    assert Path(f"{aside}-wal").read_bytes() == b"rest"
    with opened(path) as store:
        assert store.keys.all() == []
        assert not store.keys.were_lost()
        store.keys.note_lost(aside.name)
        assert store.keys.were_lost()


OPEN = """
import sys
from pathlib import Path
from rbee.errors import StoreError
from rbee.store import open_store
try:
    with open_store(Path(sys.argv[1])) as store:
        store.keys.note_lost("by another process")
except StoreError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("reads", ["4", "4+"], ids=["once", "from then on"])
def test_what_the_disk_does_not_give_is_no_broken_store(path: Path, reads: str) -> None:
    with opened(path) as store:
        store.keys.add(row())
    assert STRACE is not None
    # The header and the first page are read by then.
    refuse = f"inject=pread64:error=EIO:when={reads}"
    done = subprocess.run(
        [STRACE, "-f", "-o", "/dev/null", "-P", path, "-e", "trace=pread64", "-e", refuse,
         sys.executable, "-c", OPEN, path],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    refused = f"StoreError: the store {path} cannot be used now: disk I/O error\n"
    assert done.stderr == ("" if reads == "4" else refused)
    with opened(path) as store:
        assert store.keys.all() == [row()]


def test_who_reads_a_store_through_takes_no_locks_from_those_who_have_it_open(path: Path) -> None:
    with opened(path) as store:
        read_through(path)
        for _ in range(2):  # the first one would take the log away as it ends
            before = store.data_version()
            subprocess.run([sys.executable, "-c", OPEN, path], check=True, timeout=60)
            assert store.data_version() != before


def test_a_store_that_cannot_be_set_aside_is_an_error_of_the_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(path).close()

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match="cannot be set aside: Read-only file system"):
        set_aside(path, 0.0)


@pytest.mark.parametrize("create", [True, False])
def test_an_empty_file_is_a_broken_store_and_its_log_is_left_alone(
    path: Path, create: bool
) -> None:
    with opened(path) as store:
        store.keys.add(row())
    os.truncate(path, 0)
    (log := Path(f"{path}-wal")).write_bytes(b"the log")
    with pytest.raises(StoreCorruptError, match="is broken: the file is empty"):
        open_store(path, create=create)
    assert path.stat().st_size == 0
    assert log.read_bytes() == b"the log"


@pytest.mark.parametrize("made_with", ["CREATE TABLE notes (text)", "VACUUM"])
def test_a_database_of_another_program_is_left_alone(path: Path, made_with: str) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute(made_with)
    connection.close()
    assert path.stat().st_size
    path.chmod(0o600)
    with pytest.raises(StoreCorruptError, match="another program"):
        open_store(path)


def test_a_store_of_a_later_version_is_left_alone(path: Path) -> None:
    opened(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    with pytest.raises(StoreError, match="has version 1000") as caught:
        open_store(path)
    assert not isinstance(caught.value, StoreCorruptError)


def test_a_row_that_is_no_key_is_a_broken_store(path: Path) -> None:
    with opened(path) as store:
        store.keys.add(row())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("UPDATE keys SET models = 'none'")
        other.close()
        with pytest.raises(StoreCorruptError, match="a key that is none"):
            store.keys.all()


def test_another_file_in_its_place_is_noticed(path: Path) -> None:
    with opened(path) as store:
        assert store.is_in_place()
        set_aside(path, 0.0)
        assert not store.is_in_place()
        opened(path).close()
        assert not store.is_in_place()


def test_a_file_that_goes_while_it_is_opened_is_an_error_of_the_store(path: Path) -> None:
    with pytest.raises(StoreError):
        Database(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_was_done_to_the_file_it_opens_or_is_an_error_of_the_store(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "rbee.db"
    for companion in ("", "-wal", "-shm"):
        Path(f"{path}{companion}").unlink(missing_ok=True)
    with opened(path) as store:
        store.keys.add(row())
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    try:
        with opened(path) as store:
            store.keys.all()
            store.data_version()
    except StoreError:
        pass
