"""``rbee status``: one look at a server, or one each second."""

import json as json_text
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rbee.cli.address import Address, server_address
from rbee.cli.endings import NOT_WELL, RefusedError, UnreachableError
from rbee.cli.options import HERE, At
from rbee.cli.terminal import is_terminal, printable_line, put

if TYPE_CHECKING:
    from rich.text import Text

REFRESH_S: Final = 1.0

_COLOURS: Final = {
    "ready": "green", "busy": "green", "ok": "green", "starting": "yellow", "loading": "yellow",
    "draining": "yellow", "waiting": "yellow", "failed": "red", "stopped": "dim",
    "unavailable": "red",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a server showed."""

    url: str
    readiness: str
    answer: dict[str, Any]  # of GET /v1/rbee/workers

    @property
    def exit_code(self) -> int:
        return 0 if self.readiness == "ok" else NOT_WELL


def status(*, at: At = HERE, watch: bool = False, json: bool = False) -> int:
    """Show the workers, and whether the server is ready.

    Args:
      watch: Look again each second, until Ctrl-C; also over the server's own restarts.
      json: Print JSON, for programs; one line for each look.
    """
    address = server_address(at)
    if watch:
        _watch(address, _as_json if json else None)
    look = _look(address)
    put(_as_json(look) if json else _shown(look))
    return look.exit_code


def _look(address: Address) -> Look:
    from rbee.cli.server import Server

    with Server(address) as server:
        return Look(address.url, server.readiness(), server.workers())


def _watch(address: Address, as_line: Callable[[Look], str] | None) -> None:
    """Look each second until Ctrl-C; says so when the server is away."""
    if as_line is None and is_terminal(sys.stdout):
        _watch_live(address)
    while True:
        began_s = time.monotonic()
        try:
            look = _look(address)
            put(as_line(look) if as_line else _shown(look) + "\n")
        except (UnreachableError, RefusedError) as error:
            away = {"url": address.url, "error": str(error)}
            put(json_text.dumps(away) if as_line else f"{error}\n")
        _wait_next(began_s)


def _watch_live(address: Address) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    seen_s = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            began_s = time.monotonic()
            try:
                picture = _coloured(_look(address), console.width)
                seen_s = began_s
            except (UnreachableError, RefusedError) as error:
                picture = _absence(str(error), began_s - seen_s)
            live.update(picture, refresh=True)
            _wait_next(began_s)


def _wait_next(began_s: float) -> None:
    time.sleep(max(0.0, began_s + REFRESH_S - time.monotonic()))


def _shown(look: Look) -> str:
    """The table for stdout: with colours on a terminal, all columns on a pipe."""
    if not is_terminal(sys.stdout):
        return "\n".join(_lines(look, None))
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as capture:
        console.print(_coloured(look, console.width), soft_wrap=True)
    return capture.get().rstrip("\n")


def _as_json(look: Look) -> str:
    return json_text.dumps({"url": look.url, "readiness": look.readiness, **look.answer})


def _lines(look: Look, width_max: int | None) -> list[str]:
    from rbee.cli.server import box_rows, worker_rows
    from rbee.cli.worker_table import aligned, box_lines, make_table, remarks

    rows = worker_rows(look.answer)
    table = aligned(make_table(rows, width_max))
    return [*table, "", *remarks(rows), *box_lines(box_rows(look.answer)), _summary(look)]


def _summary(look: Look) -> str:
    queued = look.answer.get("queued")
    waiting = f"; {queued} requests wait" if isinstance(queued, int) else ""
    return f"{look.url}: {printable_line(look.readiness)}{waiting}"


def _coloured(look: Look, width_max: int) -> "Text":
    from rich.text import Text

    text = Text("\n".join(_lines(look, width_max)), no_wrap=True, overflow="ellipsis")
    for word, colour in _COLOURS.items():
        text.highlight_regex(rf"(?<=[ ]){word}(?=[ ;]|$)", colour)
    return text


def _absence(problem: str, away_s: float) -> "Text":
    from rich.text import Text

    return Text(f"{printable_line(problem)}\n(away for {away_s:.0f} s; looking each second)", "red")
