"""The table of workers: what stands in it, and what is left out where the terminal is narrow.

No server, clock or terminal in this file: rows come in, cells and lines go out.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rbee.cli.server import BoxRows, GpuRow, WorkerRow
from rbee.cli.terminal import printable_line

GAP: Final = 2  # columns of space between two cells
NOTHING: Final = "-"

# Of a slot in these states the last failure is an old one: its worker's `concern` tells what is.
WITH_WORKER: Final = frozenset({"ready", "busy", "draining"})


class Column(NamedTuple):
    title: str
    cell: Callable[[WorkerRow], str]
    is_number: bool = False


class Table(NamedTuple):
    columns: list[Column]
    rows: list[list[str]]

    def widths(self) -> list[int]:
        titles = [column.title for column in self.columns]
        return [max(map(len, cells)) for cells in zip(titles, *self.rows, strict=True)]

    def width(self) -> int:
        return sum(self.widths()) + GAP * (len(self.columns) - 1)

    def without(self, title: str) -> "Table":
        kept = [i for i, column in enumerate(self.columns) if column.title != title]
        return Table([self.columns[i] for i in kept], [[row[i] for i in kept] for row in self.rows])


def make_table(rows: Sequence[WorkerRow], width_max: int | None = None) -> Table:
    """All columns, or as many as fit in ``width_max``: the slot and its state always stay."""
    table = Table(
        list(_COLUMNS),
        [[printable_line(column.cell(row)) for column in _COLUMNS] for row in rows],
    )
    for title, is_told in (
        ("VRAM", any(row.vram_bytes or row.vram_reserved_bytes for row in rows)),
        ("HELD BY", any(row.held_by for row in rows)),
        ("BREAKER", any(row.breaker not in ("", "closed") for row in rows)),
    ):
        if not is_told:
            table = table.without(title)
    for title in _LEAVE_OUT:
        if width_max is None or table.width() <= width_max:
            break
        table = table.without(title)
    return table


def aligned(table: Table) -> list[str]:
    """The table as lines of text in even columns, titles first."""
    widths = table.widths()
    titles = [column.title for column in table.columns]
    return [_line(cells, widths, table.columns) for cells in (titles, *table.rows)]


def remarks(rows: Sequence[WorkerRow]) -> list[str]:
    """One line for each slot that is not well, with why."""
    unwell = [row for row in rows if row.last_failure and row.state not in WITH_WORKER]
    slow = [row for row in rows if row.concern]
    waiting = [
        printable_line(f"{row.slot} waits: {row.waits_for}") for row in rows if row.waits_for
    ]
    return [*map(_remark, unwell), *waiting, *map(_concern, slow)]


def box_lines(box: BoxRows) -> list[str]:
    """One line for each GPU that workers use, and for each file system that is not well."""
    disks = [
        f"{disk.place} is {disk.state}: {disk.problem}" for disk in box.disks if disk.state != "ok"
    ]
    return [printable_line(line) for line in (*map(_gpu, box.gpus), *disks)]


def bytes_text(count: int | None) -> str:
    """``417 MiB``; ``-`` for what is not known."""
    if count is None:
        return NOTHING
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def duration_text(seconds: float | None) -> str:
    """``41s``, ``7m05s``, ``3h12m``, ``9d04h``; ``-`` for what is not known."""
    if seconds is None:
        return NOTHING
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    padded = [
        cell.rjust(width) if column.is_number else cell.ljust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]
    return (" " * GAP).join(padded).rstrip()


def _remark(row: WorkerRow) -> str:
    cause = f" ({row.cause})" if row.cause else ""
    retry = f"; next try in {row.retry_in_s:.1f} s" if row.retry_in_s is not None else ""
    then = f"; {row.remedy}; then: rbee workers reset {row.slot}" if row.remedy else ""
    return printable_line(f"{row.slot} is {row.state}: {row.last_failure}{cause}{retry}{then}")


def _concern(row: WorkerRow) -> str:
    return printable_line(f"{row.slot} is {row.verdict}: {row.concern}")


def _gpu(gpu: GpuRow) -> str:
    free = "" if gpu.memory_free_bytes is None else f", {bytes_text(gpu.memory_free_bytes)} free"
    heat = "" if gpu.temperature_c is None else f", {gpu.temperature_c} C"
    why = f": {gpu.problem}" if gpu.problem else ""
    return (
        f"GPU {gpu.index} is {gpu.state}, {bytes_text(gpu.reserved_bytes)} of"
        f" {bytes_text(gpu.memory_total_bytes)} reserved{free}{heat}{why}"
    )


def _vram(row: WorkerRow) -> str:
    """Used and reserved."""
    if row.vram_reserved_bytes is None:
        return bytes_text(row.vram_bytes)
    return f"{bytes_text(row.vram_bytes)} / {bytes_text(row.vram_reserved_bytes)}"


def _held_by(row: WorkerRow) -> str:
    return " ".join(f"{what}:{by}" for what, by in row.held_by.items()) or NOTHING


def _phase(row: WorkerRow) -> str:
    if row.phase is None:
        return NOTHING
    return row.phase if row.progress is None else f"{row.phase} {row.progress:.0%}"


def _requests(row: WorkerRow) -> str:
    return f"{row.requests}/{row.batch_size}" if row.batch_size is not None else str(row.requests)


def _beat(row: WorkerRow) -> str:
    return NOTHING if row.beat_age_s is None else f"{row.beat_age_s:.1f}s"


_COLUMNS: Final = (
    Column("SLOT", lambda row: row.slot),
    Column("MODEL", lambda row: row.model or NOTHING),
    Column("ENGINE", lambda row: row.engine or NOTHING),
    Column("STATE", lambda row: row.state or NOTHING),
    Column("PID", lambda row: NOTHING if row.pid is None else str(row.pid), is_number=True),
    Column("PHASE", _phase),
    Column("REQUESTS", _requests, is_number=True),
    Column("TOKENS", lambda row: str(row.tokens), is_number=True),
    Column("BEAT", _beat, is_number=True),
    Column("RESTARTS", lambda row: str(row.restarts), is_number=True),
    Column("BREAKER", lambda row: row.breaker or NOTHING),
    Column("MEMORY", lambda row: bytes_text(row.rss_bytes), is_number=True),
    Column("VRAM", _vram, is_number=True),
    Column("HELD BY", _held_by),
    Column("UPTIME", lambda row: duration_text(row.uptime_s), is_number=True),
)
# The first to go is the one that the others tell best: a slot's name begins with its model's.
_LEAVE_OUT: Final = (
    "MODEL", "HELD BY", "ENGINE", "UPTIME", "TOKENS", "BEAT", "PHASE", "VRAM", "MEMORY", "PID",
    "RESTARTS", "REQUESTS", "BREAKER",
)  # fmt: skip
