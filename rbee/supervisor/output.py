"""What a worker prints, on its way into the log: line by line, within bounds.

Rule: a line that names a request by ``correlation_id=ID`` is found in the log under that id.
"""

import re
from typing import Final

import trio

from rbee.ids import CORRELATION_ID
from rbee.logs import Log

LINE_BYTES_MAX: Final = 4096

# A worker may print so much; the rest of a second is counted and left out.
LINES_PER_S_MAX: Final = 1000
FLOOD_PAUSE_S: Final = 0.01

_CORRELATION: Final = re.compile(
    rf"\bcorrelation_id=(?P<id>{CORRELATION_ID.pattern})(?![A-Za-z0-9._-])", re.ASCII
)


async def capture(
    descriptor: int, worker_id: str, pid: int, log: Log, reading: trio.CancelScope
) -> None:
    """Put what the worker prints into the log, line by line, until its end. Owns the pipe."""
    rest = b""
    output = _Output(worker_id, pid, log)
    with reading:
        async with trio.lowlevel.FdStream(descriptor) as stream:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LINE_BYTES_MAX:
                    lines, rest = [*lines, rest], b""
                if not output.tell(lines, trio.current_time()):
                    await trio.sleep(FLOOD_PAUSE_S)
    output.tell([rest], trio.current_time())
    output.tell_omitted()


class _Output:
    """What a worker prints, on its way into the log, within `LINES_PER_S_MAX`."""

    def __init__(self, worker_id: str, pid: int, log: Log) -> None:
        self._worker_id = worker_id
        self._pid = pid
        self._log = log
        self._second = -1
        self._room = 0  # lines
        self._omitted = 0

    def tell(self, lines: list[bytes], now_s: float) -> bool:
        """Log ``lines``. False: not all of them found room."""
        if int(now_s) != self._second:
            self.tell_omitted()
            self._second, self._room = int(now_s), LINES_PER_S_MAX
        told = lines[: self._room]
        for line in told:
            text = line[:LINE_BYTES_MAX].decode("utf-8", "backslashreplace").rstrip()
            if text:
                named = _CORRELATION.search(text)
                of_request = {} if named is None else {"correlation_id": named["id"]}
                self._log.info(
                    "worker_output", worker=self._worker_id, pid=self._pid, line=text, **of_request
                )
        self._room -= len(told)
        self._omitted += len(lines) - len(told)
        return len(told) == len(lines)

    def tell_omitted(self) -> None:
        if self._omitted:
            self._log.warning(
                "worker_output_omitted", worker=self._worker_id, pid=self._pid,
                lines=self._omitted,
            )  # fmt: skip
            self._omitted = 0
