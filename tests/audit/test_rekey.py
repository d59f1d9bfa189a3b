"""Another secret for the seals: announced under the old one, and never back to it."""

import errno
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from rbee.audit.anchor import Anchor, read_anchor, sealed, write_anchor
from rbee.audit.chain import key_id, read_line
from rbee.audit.disk import RealDisk
from rbee.audit.events import ConfigRejected
from rbee.audit.files import log_files
from rbee.audit.opening import open_audit
from rbee.audit.place import Place, place_in
from rbee.audit.reading import verify
from rbee.audit.trail import Trail
from rbee.audit.verify import Flaw, FlawKind
from rbee.config import AuditConfig
from rbee.errors import ConfigError
from tests.api.face import LogLines
from tests.audit.log import (
    KEY,
    SMALL,
    entries,
    events,
    good,
    note,
    raw_lines,
    trail_in,
    write_log,
)
from tests.audit.test_tamper import rewrite

NEW = bytes(reversed(range(32)))
NEWEST = bytes(32)


def finish(trail: Trail) -> None:
    trail.sync()
    trail.anchor()
    trail.close()


def rekeyed_log(state_dir: Path, before: int = 3, after: int = 3) -> Place:
    """Entry ``before + 1`` is the one that names the new key."""
    trail = trail_in(state_dir, key=KEY)
    trail.append([note(number) for number in range(before)])
    trail.rekey(NEW)
    trail.append([note(number) for number in range(after)])
    finish(trail)
    return place_in(state_dir)


def flaw_of(place: Place, keys: Sequence[bytes]) -> Flaw:
    flaw = verify(place, keys).flaw
    assert flaw is not None
    return flaw


def rewritten(place: Place, seq: int, key: bytes) -> None:
    """Entries from one on, changed and sealed by somebody who knows a key; an anchor that fits."""
    lines = rewrite(raw_lines(place), seq - 1, key)
    log_files(place.folder)[0].write_bytes(b"".join(lines))
    last = read_line(lines[-1][:-1])
    assert last is not None
    anchor = Anchor(last.entry.seq, last.hash, first_seq=1)
    write_anchor(RealDisk(), place.anchor, sealed(anchor, key))


def test_a_rekeying_is_sealed_with_the_old_key_and_names_the_new_one(tmp_path: Path) -> None:
    place = rekeyed_log(tmp_path)
    told = entries(place)[3]
    assert told["event"] == "audit.rekeyed"
    assert told["actor"] == "audit"
    assert told["details"] == {"key": key_id(NEW), "before": key_id(KEY)}
    assert good(place, [NEW, KEY]).sealed == 7
    anchor = read_anchor(place.anchor)
    assert anchor is not None
    assert anchor.is_sealed_by(NEW)


def test_the_newest_secret_comes_first_and_all_are_needed(tmp_path: Path) -> None:
    place = rekeyed_log(tmp_path)
    for keys, seq in (([NEW], 1), ([KEY], 5), ([KEY, NEW], 8), ([NEWEST, NEW, KEY], 8)):
        flaw = flaw_of(place, keys)
        assert (flaw.kind, flaw.seq) == (FlawKind.BAD_SEAL, seq), keys
    good(place)


@pytest.mark.parametrize("seq", [5, 7])
def test_an_entry_of_the_old_key_behind_a_rekeying_is_the_first_bad_one(
    seq: int, tmp_path: Path
) -> None:
    place = rekeyed_log(tmp_path)
    rewritten(place, seq, KEY)
    flaw = flaw_of(place, [NEW, KEY])
    assert (flaw.kind, flaw.seq) == (FlawKind.BAD_SEAL, seq)


def test_who_knows_the_old_key_cannot_take_the_log_back_to_before_the_rekeying(
    tmp_path: Path,
) -> None:
    place = rekeyed_log(tmp_path)
    log_files(place.folder)[0].write_bytes(b"".join(raw_lines(place)[:3]))
    rewritten(place, 2, KEY)
    good(place, [KEY])
    flaw = flaw_of(place, [NEW, KEY])
    assert (flaw.kind, flaw.seq) == (FlawKind.BAD_SEAL, 4)
    assert key_id(KEY) in flaw.what


@pytest.mark.parametrize("kept", [4, 6])
def test_who_knows_the_old_key_cannot_cut_off_what_was_sealed_with_the_new_one(
    kept: int, tmp_path: Path
) -> None:
    place = rekeyed_log(tmp_path)
    lines = raw_lines(place)[:kept]
    log_files(place.folder)[0].write_bytes(b"".join(lines))
    third = read_line(lines[2][:-1])
    assert third is not None
    write_anchor(RealDisk(), place.anchor, sealed(Anchor(3, third.hash, first_seq=1), KEY))
    assert flaw_of(place, [NEW, KEY]).kind is FlawKind.BAD_ANCHOR


def test_a_forged_rekeying_is_the_first_bad_entry(tmp_path: Path) -> None:
    place = write_log(tmp_path, 3, key=KEY)
    forger = trail_in(tmp_path, key=NEWEST)  # takes over, as it does not know the secret
    forger.append([note(4)])
    finish(forger)
    assert (flaw_of(place, [KEY]).kind, flaw_of(place, [KEY]).seq) == (FlawKind.BAD_SEAL, 4)


def test_a_start_under_another_secret_is_told_and_good_for_a_newer_one_alone(
    tmp_path: Path,
) -> None:
    write_log(tmp_path, 3, key=KEY)
    place = write_log(tmp_path, 2, key=NEW)
    assert events(place)[3] == "audit.rekeyed"
    assert entries(place)[3]["details"] == {"key": key_id(NEW), "before": None}
    assert good(place, [NEW, KEY]).sealed == 6
    write_log(tmp_path, 2, key=KEY)
    for keys in ([NEW, KEY], [KEY, NEW]):
        flaw = flaw_of(place, keys)
        assert (flaw.kind, flaw.seq) == (FlawKind.BAD_SEAL, 4 if keys[0] == KEY else 7)


def test_a_change_that_no_entry_names_is_the_first_bad_entry(tmp_path: Path) -> None:
    write_log(tmp_path, 3, key=KEY)
    place = write_log(tmp_path, 2, key=NEW)
    lines = raw_lines(place)
    taken = [line.replace(b"audit.rekeyed", b"audit.rotated") for line in lines]
    log_files(place.folder)[0].write_bytes(b"".join(rewrite(taken, 3, NEW)))
    flaw = flaw_of(place, [NEW, KEY])
    assert (flaw.kind, flaw.seq) == (FlawKind.BAD_SEAL, 4)
    assert "no entry before it names" in flaw.what


def test_an_old_secret_may_come_back_only_by_a_rekeying(tmp_path: Path) -> None:
    place = rekeyed_log(tmp_path)
    trail = trail_in(tmp_path, key=NEW)
    trail.rekey(KEY)
    trail.append([note(9)])
    finish(trail)
    good(place, [KEY, NEW])


def test_secrets_are_replaced_again_and_again_over_files(tmp_path: Path) -> None:
    keys = [bytes([number]) * 32 for number in range(6)]
    trail = trail_in(tmp_path, AuditConfig(file_bytes_max=4096), keys[0])
    for key in keys[1:]:
        trail.append([note(number) for number in range(10)])
        trail.rekey(key)
    finish(trail)
    place = place_in(tmp_path)
    assert len(log_files(place.folder)) > 3
    assert events(place).count("audit.rekeyed") == 5
    good(place, keys[::-1])
    finish(trail := trail_in(tmp_path, SMALL, keys[-1]))
    trail = trail_in(tmp_path, SMALL, keys[-1])
    trail.append([note(1)])
    finish(trail)  # and the oldest files go
    assert len(log_files(place.folder)) == 3
    good(place, keys[::-1])


class DyingDisk(RealDisk):
    """A process that is killed at one of its calls."""

    def __init__(self, at: int) -> None:
        self._left = at

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._die()
        return super().write(descriptor, data)

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        self._die()
        return super().write_at(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        self._die()
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._die()
        super().rename(source, target)

    def truncate(self, descriptor: int, size: int) -> None:
        self._die()
        super().truncate(descriptor, size)

    def _die(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed


class Killed(BaseException):
    pass


@pytest.mark.parametrize("torn", [b"", b'{"seq":5,"ti'], ids=["whole", "torn"])
def test_a_crash_at_any_moment_of_a_rekeying_is_good_after_the_next_start(
    torn: bytes, quick_path: Path
) -> None:
    write_log(quick_path / "before", 3, key=KEY)
    for at in itertools.count():
        state_dir = quick_path / str(at)
        shutil.copytree(quick_path / "before", state_dir)
        place = place_in(state_dir)
        trail = trail_in(state_dir, key=KEY, disk=DyingDisk(at))
        try:
            trail.rekey(NEW)
            trail.append([note(4)])
            trail.sync()
            trail.anchor()
        except Killed:
            is_over = False
        else:
            is_over = True
        trail.close()
        with log_files(place.folder)[-1].open("ab") as file:
            file.write(torn)
        write_log(state_dir, 1, key=NEW)
        assert good(place, [NEW, KEY]).last is not None
        assert "audit.damaged" not in events(place)
        assert events(place).count("audit.rekeyed") == 1, at
        if is_over:
            break
    assert at > 5


def test_another_server_waits_for_the_secret_and_writes_no_entry_of_the_old_one(
    tmp_path: Path,
) -> None:
    one, other = trail_in(tmp_path, key=KEY), trail_in(tmp_path, key=KEY)
    one.append([note(1)])
    other.append([note(2)])
    one.rekey(NEW)
    for _ in range(2):
        with pytest.raises(OSError, match="another secret than ours") as caught:
            other.append([note(3)])
        assert caught.value.errno == errno.EKEYREJECTED
    other.offer(NEW)
    other.append([note(3)])
    other.rekey(NEW)
    one.append([note(4)])
    finish(other)
    finish(one)
    assert good(place_in(tmp_path), [NEW, KEY]).entries == 5


def test_who_may_not_take_over_leaves_a_log_of_another_secret_alone(tmp_path: Path) -> None:
    place = write_log(tmp_path, 2, key=KEY)
    before = raw_lines(place)
    for key in (None, NEW):
        trail = Trail(place, AuditConfig(), key, may_take_over=False)
        with pytest.raises(OSError, match="another secret than ours"):
            trail.append([note(3)])
        trail.close()
    assert raw_lines(place) == before
    good(place, [KEY])


def secret_in(folder: Path) -> Callable[[str], Path]:
    path = folder / "secret"

    def write(text: str) -> Path:
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


async def test_the_writer_replaces_it_in_its_turn_and_a_bad_file_changes_nothing(
    tmp_path: Path,
) -> None:
    write = secret_in(tmp_path)
    config = AuditConfig(secret_file=str(write("one")))
    log = LogLines()
    with open_audit(config, place_in(tmp_path), log) as opened:
        assert opened.secret is not None
        assert opened.secret.prepare() is None
        for number in range(20):
            opened.audit.record(ConfigRejected(problem=f"{number}"), actor="a")
        write("two")
        prepared = opened.secret.prepare()
        assert prepared is not None
        assert prepared[0] == "audit.secret_file"
        prepared[1]()
        for number in range(20, 40):
            opened.audit.record(ConfigRejected(problem=f"{number}"), actor="a")
        (tmp_path / "secret").chmod(0o644)
        with pytest.raises(ConfigError, match="closed to others"):
            opened.secret.prepare()
        await opened.audit.record_durably(ConfigRejected(problem="last"), actor="a")
        write("two")
        assert opened.secret.prepare() is None
    told = entries(place_in(tmp_path))
    place = [each["event"] for each in told].index("audit.rekeyed")
    assert place == 20
    assert told[-1]["details"]["problem"] == "last"
    (logged,) = log.of("audit_rekeyed")
    assert logged == {"key": told[20]["details"]["key"], "seq": 21}


async def test_a_rekeying_waits_for_a_disk_and_all_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = secret_in(tmp_path)
    config = AuditConfig(secret_file=str(write("one")))
    is_broken = True
    real = Trail.rekey

    def rekey(trail: Trail, key: bytes) -> None:
        if is_broken:
            raise OSError(errno.ENOSPC, "full")
        real(trail, key)

    monkeypatch.setattr(Trail, "rekey", rekey)
    monkeypatch.setattr("rbee.audit.writer.RETRY_S", 0.01)
    with open_audit(config, place_in(tmp_path), LogLines()) as opened:
        assert opened.secret is not None
        write("two")
        prepared = opened.secret.prepare()
        assert prepared is not None
        prepared[1]()
        opened.audit.record(ConfigRejected(problem="behind it"), actor="a")
        with trio.fail_after(5):
            while opened.audit.state.state != "failing":
                await trio.sleep(0.005)
        assert opened.audit.state.seq == 0
        is_broken = False
        with trio.fail_after(5):
            while opened.audit.state.waiting:
                await trio.sleep(0.005)
    assert events(place_in(tmp_path)) == ["audit.rekeyed", "config.rejected"]
