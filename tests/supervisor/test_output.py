"""What a worker prints is found in the log, under the request that it names."""

import os

import pytest
import trio

from rbee.supervisor.output import capture
from tests.api.face import LogLines


@pytest.mark.parametrize(
    ("line", "correlation_id"),
    [
        ("bug in request 7 correlation_id=my-id.1_A: KeyError", "my-id.1_A"),
        ("correlation_id=a", "a"),
        ("xcorrelation_id=a", None),
        ("correlation_id=" + "a" * 65, None),
        ("correlation_id=\x1b[2J", None),
        ("llama.cpp: loading", None),
    ],
)
async def test_a_line_that_names_a_request_bears_its_id(
    line: str, correlation_id: str | None
) -> None:
    read, write = os.pipe()
    os.write(write, line.encode() + b"\n")
    os.close(write)
    log = LogLines()
    await capture(read, "w-0", 7, log, trio.CancelScope())
    [told] = log.of("worker_output")
    assert told.get("correlation_id") == correlation_id
    assert (told["worker"], told["pid"], told["line"]) == ("w-0", 7, line)
