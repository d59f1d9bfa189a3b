"""``rbee audit``: whether the audit log is as it was written, its end, and parts of it.

All of it reads the files: it needs no server, and works on a copy.
"""

import json as json_text
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from rbee.cli.endings import NOT_WELL, UsageError
from rbee.cli.terminal import printable_line, put, say

if TYPE_CHECKING:
    from rbee.audit.chain import Head
    from rbee.audit.place import Place
    from rbee.audit.verify import Verdict

FOLLOW_EVERY_S: Final = 0.5
LINES_MAX: Final = 1_000_000
_LINES_AT_ONCE: Final = 1000  # of an export
_PIN: Final = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)

Folder = Annotated[Path | None, Parameter(help="Of the log; else as the configuration has it.")]
Config = Annotated[Path | None, Parameter(help="The configuration; else ./rbee.toml or defaults.")]


def verify(  # noqa: PLR0913  # what may be said on the command line
    folder: Folder = None,
    /,
    *,
    config: Config = None,
    secret_file: list[Path] | None = None,
    head: list[str] | None = None,
    accept: list[int] | None = None,
    json: bool = False,
) -> int:
    """Say whether the log is as it was written, or which entry is the first that is not.

    Exit code 1: it is not.

    Args:
      secret_file: The secret that seals it; where it was replaced all of them, the newest first.
        Without it, the configured one.
      head: An entry that you know from elsewhere, as NUMBER:HASH.
      accept: An entry that tells of damage, by its number, once you know what had happened.
      json: Print JSON, for programs.
    """
    from rbee.audit.reading import verify as verify_log

    place, sealed_by = _place(folder, config)
    files = secret_file or ([sealed_by] if sealed_by else [])
    verdict = verify_log(place, _keys(files), [_pin(each) for each in head or ()], accept or ())
    if json:
        put(json_text.dumps(asdict(verdict)))
    else:
        put("\n".join(_told(verdict, str(place.folder), bool(files))))
    return NOT_WELL if verdict.flaw else 0


def tail(
    folder: Folder = None,
    /,
    *,
    config: Config = None,
    lines: Annotated[int, Parameter(name=["--lines", "-n"])] = 20,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False,
    json: bool = False,
) -> int:
    """Show the last entries.

    Args:
      lines: How many.
      follow: Go on with those that come, until Ctrl-C.
      json: Print them as they stand in the file.
    """
    from rbee.audit.reading import last_lines, lines_since, open_log

    if not 0 <= lines <= LINES_MAX:
        raise UsageError(f"--lines must be from 0 to {LINES_MAX}")
    place, _ = _place(folder, config)
    with open_log(place) as log:
        found, mark = last_lines(log, lines), log.end
    while True:
        if found:
            put("\n".join(_shown(raw, json) for raw in found))
        if not follow:
            return 0
        time.sleep(FOLLOW_EVERY_S)
        with open_log(place) as log:
            found, mark = lines_since(log, mark), log.end


def export(
    folder: Folder = None,
    /,
    *,
    config: Config = None,
    since: str | None = None,
    until: str | None = None,
    event: list[str] | None = None,
) -> int:
    """Print entries as JSON lines, as they stand in the files.

    Exit code 1: there are lines that are no entries; they are left out.

    Args:
      since: The first one, by its number or a time such as 2026-11-03T12:00:00Z.
      until: The last one, likewise.
      event: Only events of this name, or pattern such as 'worker.*'; may be given more than once.
    """
    from rbee.audit.chain import read_line
    from rbee.audit.reading import open_log
    from rbee.audit.selection import select

    selection = select(since, until, event or ())
    place, _ = _place(folder, config)
    bad = 0
    texts: list[str] = []
    with open_log(place) as log:
        for raw in log.all_lines():
            line = read_line(raw[:-1]) if raw.endswith(b"\n") else None
            if line is None:
                bad += 1
            elif selection.takes(line.entry):
                texts.append(raw.decode())
            if len(texts) >= _LINES_AT_ONCE:
                put("".join(texts), end="")
                texts.clear()
    put("".join(texts), end="")
    if bad:
        say(f"{bad} lines are no entries and were left out; see `rbee audit verify`")
    return NOT_WELL if bad else 0


def _place(folder: Path | None, config: Path | None) -> "tuple[Place, Path | None]":
    """Where the log is, and the file of the secret that seals it."""
    from rbee.audit.place import place_in, place_of_copy
    from rbee.cli.effective_config import configuration
    from rbee.secret_files import secret_path
    from rbee.supervisor.crashes import default_state_dir

    if folder is not None:
        return place_of_copy(folder), None
    effective = configuration(config)
    state_dir = Path(effective.server.state_dir or default_state_dir()).absolute()
    secret_file = effective.audit.secret_file
    return place_in(state_dir), secret_path(secret_file) if secret_file else None


def _keys(files: Sequence[Path]) -> list[bytes]:
    from rbee.audit.opening import seal_key

    return [seal_key(file) for file in files]


def _pin(text: str) -> "Head":
    from rbee.audit.chain import Head

    match = _PIN.fullmatch(text)
    if match is None:
        raise UsageError("--head must be the number of an entry, a colon and its hash")
    return Head(int(match[1]), match[2])


def _told(verdict: "Verdict", folder: str, has_secret: bool) -> list[str]:
    flaw = verdict.flaw
    if flaw is not None:
        where = f" in {flaw.file}, line {flaw.line}" if flaw.line else ""
        lines = [f"first bad entry: {flaw.seq}, {flaw.kind}{where}: {flaw.what}"]
        good = (
            f"{verdict.entries} entries before it are good" if verdict.entries else "none is good"
        )
        return [*map(printable_line, lines), good]
    if verdict.last is None:
        return [f"{folder}: no entries yet"]
    seals = f"{verdict.sealed} sealed" if has_secret else "no secret given: seals not looked at"
    return [
        f"{folder}: good; entries {verdict.first_seq} to {verdict.last.seq}; {seals}",
        f"head {verdict.last.seq}:{verdict.last.hash}",
        printable_line(_witnessed(verdict)),
    ]


def _witnessed(verdict: "Verdict") -> str:
    if verdict.witnessed_seq:
        return f"the store knows it up to entry {verdict.witnessed_seq}"
    problem = f": {verdict.witness_problem}" if verdict.witness_problem else ""
    return f"the store knows nothing of it{problem}; older files with their anchor would pass"


def _shown(raw: bytes, as_json: bool) -> str:
    from rbee.audit.chain import read_line

    raw = raw.removesuffix(b"\n")
    line = read_line(raw)
    if line is None:
        return printable_line(f"no entry: {raw[:200].decode('utf-8', 'replace')}")
    if as_json:
        return raw.decode()
    entry = line.entry
    # As they stand there: whoever forged a line may have put numbers there that Python refuses.
    details = json_text.loads(bytes(entry.details), parse_int=str, parse_float=str)
    words = [f"{name}={_short(value)}" for name, value in details.items()]
    request = [entry.correlation_id] if entry.correlation_id else []
    what = [entry.time, f"{entry.seq:>6}", entry.event, entry.outcome, entry.actor]
    return printable_line(" ".join([*what, *request, *words]))


def _short(value: object) -> str:
    return value if isinstance(value, str) else json_text.dumps(value, separators=(",", ":"))
