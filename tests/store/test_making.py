"""A store has its name only once it is whole, whoever is killed, and whoever else makes one."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from rbee.errors import StoreUnmadeError
from rbee.store import open_store
from rbee.store.database import COMPANIONS
from tests.store.stores import opened, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "rbee.db"


def test_what_was_left_by_a_store_that_is_gone_does_not_get_into_a_new_one(path: Path) -> None:
    with opened(path) as store:
        store.keys.add(row())
        kept = {end: Path(f"{path}{end}").read_bytes() for end in COMPANIONS[:2]}
    path.unlink()
    for end, content in kept.items():
        Path(f"{path}{end}").write_bytes(content)
    with opened(path) as store:
        assert store.keys.all() == []


def test_what_was_left_by_one_that_was_killed_while_it_made_a_store_is_replaced(
    path: Path, tmp_path: Path
) -> None:
    path.parent.mkdir()
    (tmp_path / "else").write_bytes(b"not ours")
    (draft := path.with_name("rbee.db.new")).symlink_to(tmp_path / "else")
    with opened(path) as store:
        store.keys.add(row())
    assert not draft.is_symlink()
    assert (tmp_path / "else").read_bytes() == b"not ours"


def test_a_store_is_closed_to_others_before_it_has_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    rename = Path.rename

    def watched(source: Path, target: Path) -> Path:
        seen.append((source.name, stat.S_IMODE(source.stat().st_mode)))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", watched)
    before = os.umask(0)
    try:
        opened(path).close()
    finally:
        os.umask(before)
    assert seen == [("rbee.db.new", 0o600)]


def test_a_store_that_cannot_be_filled_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreUnmadeError, match="cannot be made: No space left on device"):
        open_store(path)
    assert list(path.parent.iterdir()) == []


def test_who_is_first_makes_the_store_and_no_key_of_another_is_lost(path: Path) -> None:
    code = (
        "import pathlib, sys; from rbee.store import open_store; from tests.store.stores import"
        " row; sys.stdin.readline();"
        "open_store(pathlib.Path(sys.argv[1])).keys.add(row(sys.argv[2]))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), f"{n:08d}"], stdin=subprocess.PIPE)
        for n in range(4)
    ]
    for each in processes:
        assert each.stdin is not None
        each.stdin.write(b"go\n")
        each.stdin.close()
    assert [each.wait(timeout=60) for each in processes] == [0] * 4
    with opened(path) as store:
        assert len(store.keys.all()) == 4
