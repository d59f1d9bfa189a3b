"""The trail: what is appended stays, in one chain, over restarts, rotations and other writers."""

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from rbee.audit import lock as lock_module
from rbee.audit import reading as reading_module
from rbee.audit.anchor import read_anchor
from rbee.audit.chain import GENESIS_HASH
from rbee.audit.files import TAIL_BYTES, log_files
from rbee.audit.place import place_in
from rbee.audit.reading import verify
from rbee.audit.trail import Trail
from rbee.audit.verify import FlawKind
from rbee.config import AuditConfig
from rbee.errors import AuditError
from tests.audit.log import (
    KEY,
    NOW_NS,
    SMALL,
    Clock,
    entries,
    events,
    good,
    note,
    notes,
    numbers,
    raw_lines,
    trail_in,
    write_log,
)


def test_a_new_log_begins_with_entry_1_behind_64_zeros(tmp_path: Path) -> None:
    place = write_log(tmp_path, 3)
    assert [entry["seq"] for entry in entries(place)] == [1, 2, 3]
    assert entries(place)[0]["prev_hash"] == GENESIS_HASH
    assert list(entries(place)[0]) == [
        "seq", "time", "event", "actor", "correlation_id", "outcome", "details", "prev_hash",
        "hash",
    ]  # fmt: skip
    verdict = good(place)
    assert (verdict.entries, verdict.first_seq) == (3, 1)


def test_everything_is_closed_to_others_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = write_log(tmp_path, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    for path in (place.anchor, *place.folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_folder_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    place = write_log(tmp_path, 1)
    place.folder.chmod(0o755)
    log_files(place.folder)[0].chmod(0o644)
    write_log(tmp_path, 1)
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(log_files(place.folder)[0].stat().st_mode) == 0o600


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(4):
        place = write_log(tmp_path, 5)
    assert [entry["seq"] for entry in entries(place)] == list(range(1, 21))
    good(place)


def test_a_file_that_is_full_is_followed_by_another_and_the_oldest_go(tmp_path: Path) -> None:
    place = write_log(tmp_path, 60, SMALL)
    files = log_files(place.folder)
    assert len(files) == 3
    assert all(path.stat().st_size < SMALL.file_bytes_max + 1024 for path in files)
    first = [path.read_text("utf-8").splitlines()[0] for path in files]
    assert all('"audit.rotated"' in line and '"size"' in line for line in first)
    verdict = good(place)
    assert verdict.first_seq > 1
    assert numbers(place)[-1] == 60
    assert numbers(place) == list(range(numbers(place)[0], 61))


def test_a_file_that_is_old_is_followed_by_another(tmp_path: Path) -> None:
    clock = Clock()
    clock.now_s = NOW_NS / 1e9
    trail = Trail(place_in(tmp_path), AuditConfig(file_age_s=100.0), None, unix_clock=clock)
    trail.append([note(1)])
    first_s = NOW_NS / 1e9  # what `note` says of its time, and so the age of the file
    clock.now_s = first_s + 99.0
    trail.append([note(2)])
    clock.now_s = first_s + 100.0
    trail.append([note(3)])
    trail.close()
    assert len(log_files(trail.folder)) == 2
    assert events(place_in(tmp_path))[2] == "audit.rotated"


def test_rotation_under_load_loses_and_doubles_nothing(quick_path: Path) -> None:
    trail = trail_in(quick_path, AuditConfig(file_bytes_max=4096, files_max=1000))
    for begin in range(0, 3000, 7):
        trail.append([note(number) for number in range(begin, begin + 7)])
        trail.sync()
        trail.anchor()
    trail.close()
    place = place_in(quick_path)
    assert numbers(place) == list(range(begin + 7))
    assert len(log_files(place.folder)) > 100
    good(place)


@pytest.mark.parametrize("torn_bytes", [1, 20, 150, 300])
@pytest.mark.parametrize("entries_before", [0, 3])
def test_a_torn_line_is_set_right_and_told(
    tmp_path: Path, torn_bytes: int, entries_before: int
) -> None:
    place = write_log(tmp_path, entries_before + 1)
    file = log_files(place.folder)[0]
    lines = raw_lines(place)
    torn = lines[-1][:torn_bytes]
    file.write_bytes(b"".join(lines[:-1]) + torn)
    place.anchor.unlink()
    trail = trail_in(tmp_path / "other")  # an anchor for the shorter log
    for number in range(1, entries_before + 1):
        trail.append([note(number)])
    trail.sync()
    trail.anchor()
    trail.close()
    if entries_before:
        place_in(tmp_path / "other").anchor.rename(place.anchor)
        assert verify(place).flaw is not None
        assert verify(place).flaw.kind is FlawKind.TORN  # type: ignore[union-attr]
    write_log(tmp_path, 1)
    repaired = entries(place)[entries_before]
    assert repaired["event"] == "audit.repaired"
    assert repaired["details"]["torn_bytes"] == len(torn)
    assert repaired["details"]["torn_text"] == torn[:256].decode()
    good(place)


def test_what_is_missing_at_the_end_is_told_and_stays_to_be_seen(tmp_path: Path) -> None:
    place = write_log(tmp_path, 5)
    file = log_files(place.folder)[0]
    file.write_bytes(b"".join(raw_lines(place)[:3]))
    write_log(tmp_path, 2)
    damaged = entries(place)[3]
    assert damaged["event"] == "audit.damaged"
    assert damaged["seq"] == 6
    assert (damaged["details"]["found_seq"], damaged["details"]["expected_seq"]) == (3, 5)
    flaw = verify(place).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.MISSING, 4)


@pytest.mark.parametrize("what", ["altered", "garbage", "anchor gone", "all gone", "other log"])
def test_damage_is_told_and_does_not_stop_the_log(tmp_path: Path, what: str) -> None:
    place = write_log(tmp_path, 5)
    file = log_files(place.folder)[0]
    match what:
        case "altered":
            file.write_bytes(file.read_bytes().replace(b"id-5", b"id-6"))
        case "garbage":
            file.write_bytes(b"\n" * 100)
        case "anchor gone":
            place.anchor.unlink()
        case "all gone":
            file.unlink()
        case _:
            other = trail_in(tmp_path / "other")
            other.append(notes(*range(100, 107)))
            other.close()
            file.write_bytes(b"".join(raw_lines(place_in(tmp_path / "other"))))
    write_log(tmp_path, 3)
    assert events(place)[-4:] == ["audit.damaged", *["limit.exceeded"] * 3]
    flaw = verify(place).flaw
    assert flaw is not None
    # Without an anchor nothing tells that it was this log's: it goes on, and says so.
    assert (flaw.kind is FlawKind.DAMAGED) == (what == "anchor gone")
    if what == "anchor gone":
        assert verify(place, accepted=[flaw.seq]).flaw is None


def test_an_anchor_that_was_lost_begins_with_the_oldest_file_that_is_left(tmp_path: Path) -> None:
    place = write_log(tmp_path, 60, SMALL)
    place.anchor.unlink()
    write_log(tmp_path, 2, SMALL)
    flaw = verify(place).flaw
    assert flaw is not None
    assert flaw.kind is FlawKind.DAMAGED
    assert verify(place, accepted=[flaw.seq]).flaw is None


def test_a_log_that_is_cut_while_it_is_written_goes_on_and_tells(tmp_path: Path) -> None:
    trail = trail_in(tmp_path)
    trail.append(notes(1, 2, 3))
    os.truncate(log_files(trail.folder)[0], 100)
    trail.append(notes(4))
    trail.close()
    place = place_in(tmp_path)
    lines = raw_lines(place)
    assert b"audit.damaged" in lines[1] or b"audit.damaged" in lines[0]
    flaw = verify(place).flaw
    assert flaw is not None
    assert flaw.seq == 1


def test_a_log_that_is_taken_away_while_it_is_written_begins_anew_and_tells(tmp_path: Path) -> None:
    trail = trail_in(tmp_path)
    trail.append(notes(1, 2, 3))
    trail.sync()
    trail.anchor()
    trail.folder.rename(tmp_path / "taken")
    for path in (tmp_path / "taken").iterdir():
        path.unlink()
    (tmp_path / "taken").rmdir()
    trail.append(notes(4))
    trail.close()
    place = place_in(tmp_path)
    assert events(place) == ["audit.damaged", "limit.exceeded"]
    flaw = verify(place).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.BEGIN_MISSING, 1)


def test_several_writers_make_one_chain(tmp_path: Path) -> None:
    def write(name: int) -> None:
        trail = trail_in(tmp_path, AuditConfig(file_bytes_max=8192, files_max=1000))
        for number in range(100):
            trail.append([note(name * 1000 + number)])
            if number % 10 == 0:
                trail.sync()
                trail.anchor()
        trail.sync()
        trail.anchor()
        trail.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    place = place_in(tmp_path)
    found = numbers(place)
    for name in range(4):
        assert [number % 1000 for number in found if number // 1000 == name] == list(range(100))
    assert "audit.damaged" not in events(place)
    assert "audit.repaired" not in events(place)
    good(place)


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    place = write_log(tmp_path, 2)
    file = log_files(place.folder)[0]
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    trail = trail_in(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        trail.append(notes(3))
    trail.close()


def test_the_anchor_is_never_ahead_of_what_is_synced(tmp_path: Path) -> None:
    trail = trail_in(tmp_path)
    trail.append(notes(1))
    trail.anchor()  # not synced: nothing to promise
    anchor = read_anchor(place_in(tmp_path).anchor)
    assert anchor is not None
    assert anchor.seq == 0
    trail.sync()
    trail.anchor()
    anchor = read_anchor(place_in(tmp_path).anchor)
    assert anchor is not None
    assert anchor.head == trail.head
    trail.close()


def test_a_sealed_log_is_good_with_its_secret_and_with_no_other(tmp_path: Path) -> None:
    place = write_log(tmp_path, 4, key=KEY)
    assert good(place, [KEY]).sealed == 4
    assert good(place, [KEY, b"another"]).sealed == 4
    good(place)  # without the secret: the hashes alone
    flaw = verify(place, [b"another"]).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.BAD_SEAL, 1)


def test_a_log_may_begin_to_be_sealed_but_not_cease(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    place = write_log(tmp_path, 3, key=KEY)
    assert good(place, [KEY]).sealed == 4
    write_log(tmp_path, 1)
    flaw = verify(place, [KEY]).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.UNSEALED, 8)
    assert events(place).count("audit.rekeyed") == 2


def test_a_log_without_any_seal_does_not_pass_for_a_sealed_one(tmp_path: Path) -> None:
    flaw = verify(write_log(tmp_path, 3), [KEY]).flaw
    assert flaw is not None
    assert flaw.kind is FlawKind.UNSEALED


def test_who_cannot_have_the_lock_gives_up_and_has_it_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(reading_module, "LOCK_TIMEOUT_S", 0.05)
    place = write_log(tmp_path, 1)
    with (place.folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        trail = trail_in(tmp_path)
        with pytest.raises(OSError, match="another process has locked it"):
            trail.append(notes(2))
        with pytest.raises(AuditError, match="is locked by another process"):
            verify(place)
    trail.append(notes(2))
    trail.close()
    assert numbers(place) == [1, 2]


def test_a_log_that_may_only_be_read_is_verified_without_its_lock(tmp_path: Path) -> None:
    place = write_log(tmp_path, 3)
    (place.folder / "lock").unlink()
    good(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["folder", "file", "lock"])
def test_what_belongs_to_somebody_else_is_not_written(what: str, tmp_path: Path) -> None:
    place = write_log(tmp_path, 1)
    paths = {
        "folder": place.folder,
        "file": log_files(place.folder)[0],
        "lock": place.folder / "lock",
    }
    os.chown(paths[what], 12345, 12345)
    trail = trail_in(tmp_path)
    with pytest.raises(PermissionError):
        trail.append(notes(2))
    trail.close()


def test_a_file_with_a_second_name_is_not_written(tmp_path: Path) -> None:
    place = write_log(tmp_path, 1)
    os.link(log_files(place.folder)[0], tmp_path / "other")
    trail = trail_in(tmp_path)
    with pytest.raises(PermissionError, match="one name"):
        trail.append(notes(2))
    trail.close()


def test_a_file_that_ends_in_no_line_at_all_is_damage(tmp_path: Path) -> None:
    place = write_log(tmp_path, 2)
    with log_files(place.folder)[0].open("ab") as file:
        file.write(bytes(2 * TAIL_BYTES))  # as a power cut may leave it
    write_log(tmp_path, 1)
    assert b'"audit.damaged"' in log_files(place.folder)[1].read_bytes()
    flaw = verify(place).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.MALFORMED, 3)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_log_that_was_moved_away_is_missed_at_the_next_entry(what: str, tmp_path: Path) -> None:
    trail = trail_in(tmp_path)
    trail.append([note(1)])
    place = place_in(tmp_path)
    [file] = log_files(place.folder)
    if what == "folder":
        place.folder.rename(tmp_path / "elsewhere")
    else:
        file.rename(place.folder / "elsewhere")
    trail.append([note(2)])
    trail.close()
    assert events(place) == ["audit.damaged", "limit.exceeded"]
    assert numbers(place) == [2]


def test_a_clock_that_was_far_ahead_does_not_keep_a_file_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    clock.now_s += 10 * 366 * 86_400
    trail = Trail(place_in(tmp_path), AuditConfig(), None, unix_clock=clock)
    trail.append([note(1)])
    clock.now_s -= 10 * 366 * 86_400
    trail.append([note(2)])
    trail.append([note(3)])
    trail.close()
    assert len(log_files(place_in(tmp_path).folder)) == 2
    assert numbers(place_in(tmp_path)) == [1, 2, 3]
