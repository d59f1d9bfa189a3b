"""The log: whole lines, in order; and a reader that stalls stops nobody."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.logs import (
    TEXT_MAX,
    TRACEBACK_MAX,
    WAITING_LINES_MAX,
    JsonLog,
    LineWriter,
    _to_json,
)


def read_all(descriptor: int, lines: list[str]) -> None:
    with os.fdopen(descriptor) as pipe:
        lines.extend(pipe)


def test_lines_come_out_whole_and_in_order() -> None:
    read_fd, write_fd = os.pipe()
    lines: list[str] = []
    reader = threading.Thread(target=read_all, args=(read_fd, lines))
    reader.start()
    writer = LineWriter(write_fd)
    for number in range(5000):
        writer.write(f"line {number} {'x' * 100}\n")
    writer.close()
    os.close(write_fd)
    reader.join(10)
    assert [line.split()[1] for line in lines] == [str(number) for number in range(5000)]


def test_a_reader_that_stalls_stops_nobody_and_what_was_dropped_is_told() -> None:
    read_fd, write_fd = os.pipe()
    writer = LineWriter(write_fd)
    for _ in range(WAITING_LINES_MAX + 5000):  # far more than the pipe holds; this returns
        writer.write("x" * 100 + "\n")
    lines: list[str] = []
    reader = threading.Thread(target=read_all, args=(read_fd, lines))
    reader.start()
    while writer.waiting:
        time.sleep(0.01)
    writer.close()
    os.close(write_fd)
    reader.join(10)
    told = [json.loads(line) for line in lines if line.startswith("{")]
    assert sum(event["lines"] for event in told) + len(lines) - len(told) == (
        WAITING_LINES_MAX + 5000
    )


def test_a_line_that_a_full_disk_took_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    has_failed = threading.Event()

    def full_once(descriptor: int, data: bytes) -> int:
        if descriptor == write_fd and not has_failed.is_set():
            has_failed.set()
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full_once)
    read_fd, write_fd = os.pipe()
    writer = LineWriter(write_fd)
    writer.write("one\n")
    assert has_failed.wait(5)
    writer.write("two\n")
    writer.close()
    os.close(write_fd)
    lines: list[str] = []
    read_all(read_fd, lines)
    assert json.loads(lines[0]) == {"event": "log_lines_dropped", "lines": 1}
    assert lines[1:] == ["two\n"]


def test_a_reader_that_is_gone_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    writer = LineWriter(write_fd)
    writer.write("nobody reads this\n")
    writer.close()
    os.close(write_fd)


def written(tell: Callable[[JsonLog], None], level: int = 20) -> list[dict[str, Any]]:
    read_fd, write_fd = os.pipe()
    writer = LineWriter(write_fd)
    tell(JsonLog(writer, level))
    writer.close()
    os.close(write_fd)
    lines: list[str] = []
    read_all(read_fd, lines)
    return [json.loads(line) for line in lines]


def test_an_event_is_one_line_of_json_with_its_time_in_utc() -> None:
    [told] = written(lambda log: log.info("worker_ready", worker="m-0", path=Path("x"), load_s=1.5))
    age = datetime.now(UTC) - datetime.fromisoformat(told.pop("timestamp"))
    assert timedelta() <= age < timedelta(minutes=1)
    assert told == {
        "event": "worker_ready", "level": "info",
        "worker": "m-0", "path": repr(Path("x")), "load_s": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize("level", [10, 20, 30, 40])
def test_events_below_the_level_are_left_out(level: int) -> None:
    def tell(log: JsonLog) -> None:
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")

    told = [(each["event"], each["level"]) for each in written(tell, level)]
    everything = [("a", "debug"), ("b", "info"), ("c", "warning"), ("d", "error")]
    assert told == everything[level // 10 - 1 :]


def test_an_exception_is_told_with_its_place() -> None:
    def tell(log: JsonLog) -> None:
        try:
            raise ValueError("the cause")  # noqa: TRY301
        except ValueError as error:
            log.error("handled", exc_info=True)  # noqa: G201  # no logger of logging
            kept = error
        log.error("later", exc_info=kept)
        log.error("none", exc_info=True)  # noqa: LOG014  # that is the question

    handled, later, none = written(tell)
    for told in (handled, later):
        assert told["exception"].startswith("Traceback (most recent call last):")
        assert told["exception"].endswith("ValueError: the cause")
        assert "exc_info" not in told
    assert none.keys() == {"event", "level", "timestamp"}


def test_half_a_character_is_no_error() -> None:
    [told] = written(lambda log: log.info("found", path="a\udcffb", other=Path("x")))
    assert told["path"] == "a\udcffb"


HOSTILE = "a\x1b[2Jb\r\nc\x7f\x9b2J\u2028\u202ee\U000e0001\ud800"


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_is_not_printable_reaches_nobodys_terminal(form: str) -> None:
    script = f"""
from rbee.config import LogConfig
from rbee.logs import open_log

log = open_log(LogConfig(format={form!r}))
hostile = {HOSTILE!r}
log.info("worker_output", line=hostile, several=[hostile])
log.info("worker_output", line=hostile[:-1])
try:
    raise ValueError(hostile)
except ValueError as bug:
    log.error("bug", exc_info=bug)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    told = done.stderr.decode("utf-8")
    assert told.replace("\n", "").isprintable()
    if form == "json":
        first, second, bug = map(json.loads, told.splitlines())
        assert first["line"] == HOSTILE
        assert second["line"] == HOSTILE[:-1]
        assert bug["exception"].endswith(HOSTILE)
    else:
        assert len(told.split("worker_output")[1].splitlines()) == 2
        assert "ValueError: a\\x1b[2Jb" in told


def test_what_is_long_is_clipped_and_a_traceback_keeps_its_end() -> None:
    def tell(log: JsonLog) -> None:
        log.info("a", text="x" * 100_000, items=["y"] * 100_000, count=5)
        log.error("b", exc_info=ValueError("z" * 100_000 + "the end"))

    told, bug = written(tell)
    assert told["text"] == "x" * TEXT_MAX + f" ... {100_000 - TEXT_MAX} more"
    assert len(told["items"]) < 2 * TEXT_MAX
    assert told["count"] == 5
    assert len(bug["exception"]) == TRACEBACK_MAX
    assert bug["exception"].endswith("the end")


@given(st.text())
def test_whatever_is_logged_is_one_line_of_printable_json(text: str) -> None:
    line = _to_json({"text": text})
    assert line.decode().isprintable()
    assert json.loads(line) == {"text": text}
