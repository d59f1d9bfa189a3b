"""`rbee audit`: what it prints, and how it ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rbee.__main__ import main
from rbee.audit.chain import SEAL_PURPOSE, finish_line, hash_of, read_line
from rbee.audit.files import log_files
from rbee.audit.place import Place
from rbee.secret_files import Secret, derive_key
from rbee.store import open_store
from tests.audit.log import KEY, SMALL, entries, raw_lines, write_log

Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = main(["audit", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def flip(place: Place, seq: int) -> None:
    lines = raw_lines(place)
    lines[seq - 1] = lines[seq - 1].replace(b"tester", b"texter")
    log_files(place.folder)[0].write_bytes(b"".join(lines))


def test_verify_says_that_a_log_is_good_and_what_its_head_is(
    capsys: Captured, tmp_path: Path
) -> None:
    place = write_log(tmp_path, 5)
    code, out, _ = run(capsys, "verify", place.folder)
    assert code == 0
    assert "good; entries 1 to 5" in out
    assert "seals not looked at" in out
    head = out.splitlines()[1].removeprefix("head ")
    assert head == f"5:{entries(place)[-1]['hash']}"
    assert run(capsys, "verify", place.folder, "--head", head)[0] == 0
    assert run(capsys, "verify", place.folder, "--head", f"9:{'0' * 64}")[0] == 1


def test_verify_names_the_first_bad_entry_and_ends_with_1(capsys: Captured, tmp_path: Path) -> None:
    place = write_log(tmp_path, 5)
    flip(place, 3)
    code, out, _ = run(capsys, "verify", place.folder)
    assert code == 1
    assert out.startswith("first bad entry: 3, altered in audit-000000000001.jsonl, line 3: ")
    assert "2 entries before it are good" in out
    code, out, _ = run(capsys, "verify", place.folder, "--json")
    verdict = json.loads(out)
    assert code == 1
    assert verdict["entries"] == 2
    assert (verdict["flaw"]["kind"], verdict["flaw"]["seq"]) == ("altered", 3)


def test_verify_checks_seals_with_the_secret_of_the_configuration_or_of_an_option(
    capsys: Captured, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a long secret\n")
    secret.chmod(0o600)
    place = write_log(tmp_path, 4, key=derive_key(Secret(b"a long secret"), SEAL_PURPOSE))
    code, out, _ = run(capsys, "verify", place.folder, "--secret-file", secret)
    assert (code, "; 4 sealed" in out) == (0, True)
    config = tmp_path / "rbee.toml"
    config.write_text(f'[server]\nstate_dir = "{tmp_path}"\n[audit]\nsecret_file = "{secret}"\n')
    code, out, _ = run(capsys, "verify", "--config", config)
    assert (code, "; 4 sealed" in out) == (0, True)
    secret.write_text("another secret\n")
    code, out, _ = run(capsys, "verify", "--config", config)
    assert (code, "bad_seal" in out) == (1, True)
    secret.chmod(0o644)
    code, _, err = run(capsys, "verify", "--config", config)
    assert (code, "must be closed to others" in err) == (78, True)


def test_what_cannot_be_read_is_no_verdict(capsys: Captured, tmp_path: Path) -> None:
    code, out, err = run(capsys, "verify", tmp_path / "none")
    assert (code, out) == (74, "")
    assert "there is no audit log" in err
    code, _, err = run(capsys, "verify", tmp_path, "--head", "5")
    assert (code, "--head must be" in err) == (64, True)


def test_damage_is_named_until_it_is_accepted(capsys: Captured, tmp_path: Path) -> None:
    place = write_log(tmp_path, 3)
    place.anchor.unlink()
    write_log(tmp_path, 1)
    code, out, _ = run(capsys, "verify", place.folder)
    assert (code, "first bad entry: 4, damaged" in out) == (1, True)
    assert run(capsys, "verify", place.folder, "--accept", "4")[0] == 0


def test_tail_shows_the_last_entries_a_line_each(capsys: Captured, tmp_path: Path) -> None:
    place = write_log(tmp_path, 30, key=KEY)
    code, out, _ = run(capsys, "tail", place.folder, "-n", "3")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 3)
    assert "28 limit.exceeded denied tester id-28 limit=requests subject=key-1" in lines[0]
    assert lines[-1].endswith("allowed=1 found=30")
    code, out, _ = run(capsys, "tail", place.folder, "--json", "-n", "2")
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [29, 30]
    assert run(capsys, "tail", place.folder, "-n", "-1")[0] == 64


def test_tail_shows_no_control_characters(capsys: Captured, tmp_path: Path) -> None:
    place = write_log(tmp_path, 1)
    log_files(place.folder)[0].write_bytes(b"\x1b[2J evil\n")
    _, out, _ = run(capsys, "tail", place.folder)
    assert out == "no entry: \\x1b[2J evil\n"


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["--since", "3"], [3, 4, 5]),
        (["--since", "2", "--until", "3"], [2, 3]),
        (["--event", "limit.*", "--until", "1"], [1]),
        (["--event", "key.*"], []),
        (["--event", "key.*", "--event", "limit.exceeded", "--since", "5"], [5]),
        (["--since", "2020-01-01T00:00:00Z"], [1, 2, 3, 4, 5]),
        (["--until", "2020-01-01T00:00:00+02:00"], []),
    ],
)
def test_export_gives_what_is_asked_for_as_it_stands(
    options: list[str], seqs: list[int], capsys: Captured, tmp_path: Path
) -> None:
    place = write_log(tmp_path, 5)
    code, out, _ = run(capsys, "export", place.folder, *options)
    assert code == 0
    assert out.encode() == b"".join(raw_lines(place)[seq - 1] for seq in seqs)


@pytest.mark.parametrize("moment", ["yesterday", "2026-11-03T12:00:00", "-5", "1e3", ""])
def test_export_refuses_what_is_no_moment(moment: str, capsys: Captured, tmp_path: Path) -> None:
    place = write_log(tmp_path, 1)
    code, _, err = run(capsys, "export", place.folder, f"--since={moment}")
    assert code in (64, 74)
    assert "Traceback" not in err


def test_export_says_what_it_left_out(capsys: Captured, tmp_path: Path) -> None:
    place = write_log(tmp_path, 2)
    log_files(place.folder)[0].write_bytes(raw_lines(place)[0] + b"garbage\n")
    code, out, err = run(capsys, "export", place.folder)
    assert (code, len(out.splitlines())) == (1, 1)
    assert "1 lines are no entries" in err


def test_tail_follows_from_file_to_file_until_it_is_interrupted(tmp_path: Path) -> None:
    place = write_log(tmp_path, 5, SMALL)
    words = [sys.executable, "-m", "rbee", "audit", "tail", str(place.folder), "-f", "-n", "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first = [process.stdout.readline().split()[1] for _ in range(2)]
        assert first == ["4", "5"]
        write_log(tmp_path, 15, SMALL)  # goes on in a second file
        assert len(log_files(place.folder)) == 2
        rest = [int(process.stdout.readline().split()[1]) for _ in range(16)]
        assert rest == list(range(6, 22))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        process.stdout.close()


@pytest.mark.parametrize(
    "details",
    [b'{"a":"\xff"}', b"[]", b'"text"', b"1e999", b'{"a":' + b"9" * 6000 + b"}", b'{"a":1e999}'],
    ids=range(6),
)
def test_a_forged_line_hides_none_of_the_others(
    details: bytes, capsys: Captured, tmp_path: Path
) -> None:
    place = write_log(tmp_path, 2)
    first, second = raw_lines(place)
    line = read_line(first[:-1])
    assert line is not None
    body = line.body.replace(bytes(line.entry.details), details)
    forged = finish_line(body, hash_of(body), None)
    log_files(place.folder)[0].write_bytes(first + forged + second)
    code, out, _ = run(capsys, "tail", place.folder)
    assert (code, len(out.splitlines())) == (0, 3)
    code, out, err = run(capsys, "export", place.folder)
    assert first.decode() in out
    assert second.decode() in out
    assert "Traceback" not in err
    assert run(capsys, "verify", place.folder)[0] == 1


def test_verify_tells_what_the_store_knows(capsys: Captured, tmp_path: Path) -> None:
    place = write_log(tmp_path, 3)
    _, out, _ = run(capsys, "verify", place.folder)
    assert "the store knows nothing of it; older files with their anchor would pass" in out
    place.store.write_bytes(b"no database")
    place.store.chmod(0o600)
    code, out, _ = run(capsys, "verify", place.folder)
    assert (code, "the store knows nothing of it: the store" in out) == (0, True)
    place.store.unlink()
    open_store(place.store).close()  # type: ignore[union-attr]
    write_log(tmp_path, 1)
    code, out, _ = run(capsys, "verify", place.folder)
    assert (code, "the store knows it up to entry 4" in out) == (0, True)
