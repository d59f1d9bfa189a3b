"""Has one system call of a real `rbee keys` command fail, and holds the command to all or nothing.

A count is of the calls that concern the files of the state directory, the configuration and its
secret, and what the command prints; not of those by which Python reads itself.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from rbee.audit.opening import seal_key
from rbee.store import FILE_NAME
from rbee.supervisor.access.api_key import id_of
from rbee.supervisor.access.hashing import fits
from tests.e2e.books import Books, flaws, read_books, write_on
from tests.e2e.injection import STRACE, Outcome, Point

# How long a command may take, on a busy machine and traced; it waits 5 s for a server.
COMMAND_S: Final = 40.0

# What a command may end with where the system refuses something; docs/exit-codes.md.
REFUSED: Final = frozenset({71, 74, 78})

DEEDS: Final = ("rotate", "make", "revoke", "list", "init")

_ON_PATHS: Final = re.compile(r"[0-9]+ +(\w+)\(")


class Desk:
    """A state directory with a key to be rotated or revoked, and the files of a command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.secret = folder / "secret"
        self._template = folder / "template"
        self.victim = ""
        folder.mkdir()
        self.secret.write_text("a secret for this trial\n")
        self.secret.chmod(0o600)
        (folder / "rbee.toml").write_text(
            f'[server]\nstate_dir = "{self.state_dir}"\n[audit]\nsecret_file = "{self.secret}"\n'
        )

    def prepare(self, deed: str) -> None:
        """Make the state that a deed finds."""
        if deed != "init":
            made = self.run("make", through=())
            assert made.returncode == 0, made.stderr
            self.victim = json.loads(made.stdout)["id"]
            shutil.copytree(self.state_dir, self._template)

    def again(self) -> None:
        """Have the state as it was prepared."""
        shutil.rmtree(self.state_dir, ignore_errors=True)
        if self._template.exists():
            shutil.copytree(self._template, self.state_dir)

    def run(self, deed: str, through: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
        """Raises: TimeoutExpired: it hangs."""
        arguments = {
            "init": ["init"],
            "make": ["keys", "create", "--role", "user", "--json"],
            "list": ["keys", "list", "--json"],
            "rotate": ["keys", "rotate", self.victim, "--json"],
            "revoke": ["keys", "revoke", self.victim],
        }[deed]
        # Unbuffered, Python writes nothing at all once more at the end, and that would be counted.
        environ = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
        command = [*through, sys.executable, "-m", "rbee", *arguments]
        with (self.folder / "stdout").open("w+") as stdout:
            done = subprocess.run(
                [*command, "--config", str(self.folder / "rbee.toml")],
                stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                text=True, timeout=COMMAND_S, check=False, env=environ,
            )  # fmt: skip
            stdout.seek(0)
            return subprocess.CompletedProcess(
                done.args, done.returncode, stdout.read(), done.stderr
            )

    def traced(self, trace: Path, options: list[str]) -> tuple[str, ...]:
        assert STRACE is not None
        files = [
            self.folder / "rbee.toml", self.folder / "stdout", self.secret, self.state_dir,
            self.state_dir / "admin.key", self.state_dir / "audit-head.json",
            self.state_dir / "audit-head.json.part", self.state_dir / "audit",
            self.state_dir / "audit/lock", self.state_dir / "audit/audit-000000000001.jsonl",
            *(self.state_dir / f"{FILE_NAME}{end}" for end in ("", "-wal", "-shm", "-journal")),
        ]  # fmt: skip
        paths = [word for file in files for word in ("-P", str(file))]
        return (STRACE, "-f", "--seccomp-bpf", "-o", str(trace), *paths, *options)


def command_points(folder: Path, deed: str, errnos: dict[str, str]) -> list[Point]:
    """One for each call that such a command makes."""
    desk = Desk(folder)
    desk.prepare(deed)
    trace = folder / "trace"
    done = desk.run(deed, desk.traced(trace, ["-e", f"trace={','.join(errnos)}"]))
    assert done.returncode == 0, done.stderr
    calls = Counter(
        match[1] for line in trace.read_text("utf-8", "replace").splitlines()
        if (match := _ON_PATHS.match(line))
    )  # fmt: skip
    return [
        Point("command", call, errno, nth, deed)
        for call, errno in errnos.items()
        for nth in range(1, calls[call] + 1)
    ]


def attempt_command(desk: Desk, point: Point) -> Outcome:
    """Try one point on a desk that was prepared for its deed."""
    desk.again()
    outcome, trace = Outcome(point), desk.folder / "trace"
    trace.unlink(missing_ok=True)
    before = read_books(desk.state_dir)
    try:
        done = desk.run(point.deed, desk.traced(trace, point.options(trace)[2:]))
    except subprocess.TimeoutExpired:
        outcome.problems.append(f"not ended within {COMMAND_S:g} s")
        return outcome
    outcome.was_hit = "(INJECTED)" in trace.read_text("utf-8", "replace")
    said = done.stderr.strip()
    outcome.how = f"{done.returncode} {said!r}"
    outcome.problems += _words(done.returncode, said)
    seals = [seal_key(desk.secret)]
    outcome.problems += flaws(desk.state_dir, seals, before, may_be_torn=True)
    if not outcome.problems:
        outcome.problems += _deed(desk, point.deed, done, before)
    write_on(desk.state_dir, seals[0])
    outcome.problems += flaws(desk.state_dir, seals, before)
    return outcome


def _words(code: int, said: str) -> list[str]:
    """One clear line where it refuses, and nothing where it does not."""
    if "Traceback" in said:
        return [f"a traceback: {said}"]
    if code not in REFUSED | {0}:
        return [f"exit code {code}"]
    if code and not re.fullmatch(r"rbee: .+", said):
        return ["it does not say why in one line"]
    return []


def _deed(
    desk: Desk, deed: str, done: "subprocess.CompletedProcess[str]", before: Books
) -> list[str]:
    """Wholly done and shown, or not done and nothing shown."""
    after, now_s, found = read_books(desk.state_dir), time.time(), list[str]()
    # A revocation is not taken back because nobody could be told of it.
    is_done = done.returncode == 0 or (deed == "revoke" and "write to stdout" in done.stderr)
    made = [key for key in after.rows if key not in before.rows and after.is_good(key, now_s + 1)]
    if len(made) != (is_done and deed in {"init", "make", "rotate"}):
        found.append(f"{len(made)} keys were made")
    elif made:
        found += _shown(desk, deed, done.stdout, after, made[0])
    if desk.victim:
        is_good = after.is_good(desk.victim, now_s + 1)
        if is_good == (is_done and deed in {"rotate", "revoke"}):
            found.append(f"the old key is {'good' if is_good else 'not good'}")
        if deed == "revoke" and is_done and after.told("key.revoked", desk.victim) != 1:
            found.append("the revocation is in no entry")
        if deed == "list" and is_done:
            listed = [each["id"] for each in json.loads(done.stdout)["keys"]]
            found += [] if listed == list(after.rows) else [f"listed are {listed}"]
    if not is_done and (desk.state_dir / "admin.key").exists():
        found.append("the file of a key that was not made is there")
    return found


def _shown(desk: Desk, deed: str, stdout: str, after: Books, key: str) -> list[str]:
    text = (
        (desk.state_dir / "admin.key").read_text().strip()
        if deed == "init"
        else json.loads(stdout)["key"]
    )
    is_right = id_of(text) == key and fits(text, after.rows[key].hash)
    return [] if is_right else ["the key that was shown is not the one that was made"]
