"""``rbee crashes``: why workers failed, as the server has written it down."""

import json as json_text
from typing import Any

from rbee.cli.address import server_address
from rbee.cli.endings import UsageError
from rbee.cli.options import HERE, At
from rbee.cli.terminal import columns, printable_line, put


def list_crashes(*, at: At = HERE, json: bool = False) -> int:
    """Show the crash reports that are kept, the newest first.

    Args:
      json: Print JSON, for programs.
    """
    from rbee.cli.server import Server, crash_rows

    with Server(server_address(at)) as server:
        answer = server.crashes()
    if json:
        put(json_text.dumps(answer))
        return 0
    rows = [("TIME", "SLOT", "CAUSE", "ID", "HOW")]
    rows += [(each.time, each.slot, each.cause, each.id, each.how) for each in crash_rows(answer)]
    put(columns(rows) if len(rows) > 1 else "no worker has failed")
    return 0


def show(crash: str | None = None, /, *, at: At = HERE, json: bool = False) -> int:
    """Tell one crash report.

    Args:
      crash: Its id, as `rbee crashes list` shows it; without it, the newest.
      json: Print it whole, as JSON.
    """
    from rbee.cli.server import Server, crash_rows

    with Server(server_address(at)) as server:
        if crash is None:
            rows = crash_rows(server.crashes())
            if not rows:
                raise UsageError(f"no worker has failed at {server.url}")
            crash = rows[0].id
        report = server.crash(crash)
    put(json_text.dumps(report) if json else "\n".join(map(printable_line, _told(report))))
    return 0


def _told(report: dict[str, Any]) -> list[str]:
    """A report as lines. What is missing is left out: the server may be of another version."""
    plain = {
        name.replace("_", " "): value
        for name, value in report.items()
        if isinstance(value, str | int | float) and value != ""
    }
    lines = [f"{name:16}{value}" for name, value in plain.items()]
    for title in ("requests", "beats", "gpus"):
        found = report.get(title)
        entries = found if isinstance(found, list) else [found] if found else []
        lines += ["", f"{title}:", *map(_entry, entries)] if entries else []
    if stacks := report.get("stacks"):
        lines += ["", "stacks, before it was killed:", *(f"  {line}" for line in stacks)]
    lines += ["", "last lines of the log:"]
    lines += [f"  {line.get('time')}  {line.get('text')}" for line in report.get("lines") or ()]
    return lines


def _entry(entry: object) -> str:
    if not isinstance(entry, dict):
        return f"  {entry}"
    return "  " + "  ".join(f"{name}={value}" for name, value in entry.items())
