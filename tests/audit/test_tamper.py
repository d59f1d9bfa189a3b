"""Whatever somebody does to a log that was closed, `verify` finds it, and names where.

RBEE_TAMPER=10000 makes the random part so large.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.audit.chain import Head, finish_line, hash_of, read_line
from rbee.audit.files import log_files
from rbee.audit.place import Place
from rbee.audit.reading import verify
from rbee.audit.verify import FlawKind
from rbee.config import AuditConfig
from tests.audit.log import KEY, good, raw_lines, write_log

ROUNDS = int(os.environ.get("RBEE_TAMPER", "500"))
ENTRIES = 30
ROOMY = AuditConfig(file_bytes_max=4096, files_max=100)


def spread(place: Place, lines: list[bytes], sizes: list[int]) -> None:
    """Write lines into the files again, so many to each; the last takes the rest."""
    files = log_files(place.folder)
    for file, size in zip(files, sizes, strict=True):
        mine, lines = (lines[:size], lines[size:]) if file != files[-1] else (lines, [])
        file.write_bytes(b"".join(mine))


def sizes_of(place: Place) -> list[int]:
    return [len(path.read_bytes().splitlines()) for path in log_files(place.folder)]


def flip(lines: list[bytes], chance: random.Random) -> list[bytes]:
    index = chance.randrange(len(lines))
    line = bytearray(lines[index])
    line[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
    return [*lines[:index], bytes(line), *lines[index + 1 :]]


def delete(lines: list[bytes], chance: random.Random) -> list[bytes]:
    index = chance.randrange(len(lines))
    return [*lines[:index], *lines[index + 1 :]]


def insert(lines: list[bytes], chance: random.Random) -> list[bytes]:
    index = chance.randrange(len(lines) + 1)
    return [*lines[:index], chance.choice(lines), *lines[index:]]


def swap(lines: list[bytes], chance: random.Random) -> list[bytes]:
    one, other = sorted(chance.sample(range(len(lines)), 2))
    changed = list(lines)
    changed[one], changed[other] = changed[other], changed[one]
    return changed


def cut(lines: list[bytes], chance: random.Random) -> list[bytes]:
    return lines[: chance.randrange(len(lines))]


def cut_within(lines: list[bytes], chance: random.Random) -> list[bytes]:
    index = chance.randrange(len(lines))
    return [*lines[:index], lines[index][: chance.randrange(1, len(lines[index]))]]


def replay(lines: list[bytes], chance: random.Random) -> list[bytes]:
    return [*lines, *lines[chance.randrange(len(lines)) :]]


def behead(lines: list[bytes], chance: random.Random) -> list[bytes]:
    return lines[chance.randrange(1, len(lines)) :]


DEEDS = [flip, delete, insert, swap, cut, cut_within, replay, behead]


@pytest.mark.parametrize("key", [None, KEY], ids=["hashes", "seals"])
@pytest.mark.parametrize("deed", DEEDS)
def test_every_random_deed_is_found_at_the_first_entry_that_it_touched(
    deed: Callable[[list[bytes], random.Random], list[bytes]],
    key: bytes | None,
    tmp_path: Path,
) -> None:
    place = write_log(tmp_path, ENTRIES, ROOMY, key)
    keys = [key] if key else []
    good(place, keys)
    lines, sizes = raw_lines(place), sizes_of(place)
    assert len(sizes) >= 3
    for seed in range(ROUNDS // (2 * len(DEEDS)) + 1):
        changed = deed(lines, random.Random(seed))
        if changed == lines:
            continue
        pairs = enumerate(zip(changed, lines, strict=False))
        shorter = min(len(changed), len(lines))
        index = next((index for index, (new, old) in pairs if new != old), shorter)
        spread(place, changed, sizes)
        flaw = verify(place, keys).flaw
        assert flaw is not None, seed
        assert flaw.seq == index + 1, (seed, flaw)
    spread(place, lines, sizes)
    good(place, keys)


def rewrite(
    lines: list[bytes],
    index: int,
    key: bytes | None,
    old: bytes = b'"key-1"',
    new: bytes = b'"key-2"',
) -> list[bytes]:
    """Change entries from one on, and make all hashes fit, as whoever may write can."""
    changed = lines[:index]
    before = read_line(lines[index - 1][:-1]).hash if index else "0" * 64  # type: ignore[union-attr]
    for raw in lines[index:]:
        line = read_line(raw[:-1])
        assert line is not None
        body = line.body.replace(old, new)
        body = body.replace(line.entry.prev_hash.encode(), before.encode())
        before = hash_of(body)
        text = finish_line(body, before, key)
        if line.seal is not None and key is None:  # the old seals stay: there are no others
            text = text[:-2] + b',"seal":"' + line.seal.encode() + b'"}\n'
        changed.append(text)
    return changed


@pytest.mark.parametrize("index", [0, 4, 17, 29])
def test_a_rewritten_end_whose_hashes_fit_is_found_by_the_anchor(
    index: int, tmp_path: Path
) -> None:
    place = write_log(tmp_path, ENTRIES)
    file = log_files(place.folder)[0]
    file.write_bytes(b"".join(rewrite(raw_lines(place), index, None)))
    flaw = verify(place).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.REPLACED, ENTRIES)


@pytest.mark.parametrize("index", [0, 4, 17, 29])
@pytest.mark.parametrize("forger", [None, b"some other key"], ids=["old seals", "own seals"])
def test_a_rewritten_end_of_a_sealed_log_is_found_at_its_first_entry(
    index: int, forger: bytes | None, tmp_path: Path
) -> None:
    place = write_log(tmp_path, ENTRIES, key=KEY)
    lines = rewrite(raw_lines(place), index, forger)
    log_files(place.folder)[0].write_bytes(b"".join(lines))
    place.anchor.unlink()  # he took that as well
    flaw = verify(place, [KEY]).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.BAD_SEAL, index + 1)


def test_older_files_put_back_are_found_and_with_the_anchor_by_a_head_known_elsewhere(
    tmp_path: Path,
) -> None:
    place = write_log(tmp_path / "now", 10, ROOMY)
    shutil.copytree(tmp_path / "now", tmp_path / "then")
    write_log(tmp_path / "now", 10, ROOMY)
    newest = good(place).last
    assert newest is not None
    shutil.rmtree(place.folder)
    shutil.copytree(tmp_path / "then" / "audit", place.folder)
    flaw = verify(place).flaw
    assert flaw is not None
    assert flaw.kind is FlawKind.CUT_OFF
    shutil.copy(tmp_path / "then" / "audit-head.json", place.anchor)
    good(place)  # both were put back: nothing here can tell
    flaw = verify(place, pins=[newest]).flaw
    assert flaw is not None
    assert flaw.kind is FlawKind.CUT_OFF
    flaw = verify(place, pins=[Head(3, "0" * 64)]).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq) == (FlawKind.REPLACED, 3)


def test_a_forged_anchor_of_a_sealed_log_is_found(tmp_path: Path) -> None:
    place = write_log(tmp_path, 10, key=KEY)
    lines = raw_lines(place)
    last = read_line(lines[7][:-1])
    assert last is not None
    log_files(place.folder)[0].write_bytes(b"".join(lines[:8]))
    text = place.anchor.read_text("utf-8")
    tenth = read_line(lines[9][:-1])
    assert tenth is not None
    text = text.replace(tenth.hash, last.hash).replace('"seq":10', '"seq":8')
    place.anchor.write_text(text)
    good(place)  # by the hashes alone it is
    flaw = verify(place, [KEY]).flaw
    assert flaw is not None
    assert flaw.kind is FlawKind.BAD_ANCHOR


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", '{"seq":1}', "\xff", '{"seq":1,"hash":"a","first_seq":"b"}', "[" * 9999],
)
def test_an_anchor_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    place = write_log(tmp_path, 2)
    place.anchor.write_text(text, "latin-1")
    flaw = verify(place).flaw
    assert flaw is not None
    assert flaw.kind is FlawKind.BAD_ANCHOR


def test_oldest_files_that_are_taken_away_while_it_is_written_are_missed(tmp_path: Path) -> None:
    place = write_log(tmp_path, ENTRIES, ROOMY)
    first, second = log_files(place.folder)[:2]
    first.unlink()
    write_log(tmp_path, 20, ROOMY)
    flaw = verify(place).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq, flaw.file) == (FlawKind.BEGIN_MISSING, 1, second.name)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"null", b"\x00" * 200, b"[" * 20_000, b'{"seq":1}' + b"x" * 70,
        b'{"hash":"' + b"0" * 64 + b'"}', b',"hash":"' + b"0" * 64 + b'"}',
    ],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_line_is_named(raw: bytes, tmp_path: Path) -> None:
    assert read_line(raw) is None
    place = write_log(tmp_path, 3)
    lines = raw_lines(place)
    log_files(place.folder)[0].write_bytes(b"".join([lines[0], raw + b"\n", *lines[1:]]))
    flaw = verify(place).flaw
    assert flaw is not None
    assert (flaw.kind, flaw.seq, flaw.line) == (FlawKind.MALFORMED, 2, 2)
