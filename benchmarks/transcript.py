"""What one client received, taken apart after the run: bytes with their times become tokens.

Nothing here runs while a load runs: the client only keeps bytes, and this file reads them later.

Rule 1: a token counts when its whole SSE event was received; its time is that of the `recv`
        that brought the event's last byte.
Rule 2: tokens are numbered text, "0 1 2 …": one that is lost, doubled or out of turn shows.
"""

import array
from dataclasses import dataclass, field
from typing import Final

import msgspec

_DATA: Final = b"data: "
_DONE: Final = b"[DONE]"
_NO_ERROR: Final = msgspec.Raw()


class TranscriptError(Exception):
    """The bytes are no answer that a client could use."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: msgspec.Raw = _NO_ERROR


_decoder: Final = msgspec.json.Decoder(_Chunk)


@dataclass(slots=True)
class Raw:
    """What a client kept while the load ran."""

    begun_s: float = 0.0  # when it began to connect
    received: bytearray = field(default_factory=bytearray)
    # One entry per recv: when it returned, and how many bytes had come by then.
    times_s: "array.array[float]" = field(default_factory=lambda: array.array("d"))
    ends: "array.array[int]" = field(default_factory=lambda: array.array("q"))
    ended: str = ""  # "" while it runs; "complete", "cut", or the error's name


@dataclass(slots=True)
class Transcript:
    """One stream, token by token."""

    begun_s: float
    tokens_s: "array.array[float]"  # when each token came
    lost: int
    duplicated: int
    fault: str  # "" for a stream that ended as it should
    body_bytes: int


def read_transcript(raw: Raw, tokens_expected: int) -> Transcript:
    """Read one stream. A stream with a fault has the tokens that came before it."""
    tokens_s: array.array[float] = array.array("d")
    text: list[str] = []
    fault, body_bytes, finish = "", 0, None
    try:
        body, body_ends = answer_body(bytes(raw.received))
        body_bytes = len(body)
        finish = _read_events(body, body_ends, raw, tokens_s, text)
        if finish != "length":
            fault = f"finish_reason {finish}"
    except TranscriptError as error:
        fault = str(error)
    if raw.ended != "complete" and (not fault or not text):
        fault = raw.ended or "did not end in time"
    lost, duplicated = _count_faults("".join(text), tokens_expected)
    return Transcript(raw.begun_s, tokens_s, lost, duplicated, fault, body_bytes)


def _read_events(
    body: bytes,
    body_ends: list[tuple[int, int]],
    raw: Raw,
    tokens_s: "array.array[float]",
    text: list[str],
) -> str | None:
    """Append each token's time and text.

    Returns:
      The finish reason.
    """
    clock = _Clock(body_ends, raw)
    start, finish, is_done = 0, None, False
    while (end := body.find(b"\n\n", start)) >= 0:
        event = body[start:end]
        start = end + 2
        if event.startswith(b":"):  # a comment keeps the connection warm
            continue
        if not event.startswith(_DATA):
            raise TranscriptError(f"event without data: {event[:40]!r}")
        payload = event[len(_DATA) :]
        if payload == _DONE:
            is_done = True
            continue
        try:
            chunk = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise TranscriptError(f"event is no chunk: {error}") from None
        if bytes(chunk.error):
            raise TranscriptError(f"error event: {bytes(chunk.error)[:200]!r}")
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.delta.content:
                tokens = choice.delta.content.count(" ")
                tokens_s.extend([clock.time_s(start)] * tokens)
                text.append(choice.delta.content)
    if not is_done:
        raise TranscriptError("no [DONE]")
    return finish


class _Clock:
    """When a byte of the body was received. Asked in ascending order."""

    def __init__(self, body_ends: list[tuple[int, int]], raw: Raw) -> None:
        self._body_ends = body_ends
        self._raw = raw
        self._chunk = 0
        self._recv = 0

    def time_s(self, body_end: int) -> float:
        """When the body's first ``body_end`` bytes were there."""
        while self._body_ends[self._chunk][0] < body_end:
            self._chunk += 1
        chunk_end, raw_end = self._body_ends[self._chunk]
        wanted = raw_end - (chunk_end - body_end)
        while self._raw.ends[self._recv] < wanted:
            self._recv += 1
        return self._raw.times_s[self._recv]


def answer_body(received: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Take off the head and the chunked framing.

    Returns:
      The body, and for each chunk where it ends in the body and where in ``received``.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        raise TranscriptError("no complete head")
    head = received[:head_end].lower()
    status = received[:head_end].split(b"\r\n", 1)[0]
    if b" 200 " not in status + b" ":
        raise TranscriptError(status.decode("latin-1"))
    if b"transfer-encoding: chunked" not in head:
        body = received[head_end + 4 :]
        return body, [(len(body), len(received))]
    parts, ends, at, length = [], [], head_end + 4, 0
    while (line_end := received.find(b"\r\n", at)) >= 0:
        size = int(received[at:line_end].split(b";", 1)[0], 16)
        begin = line_end + 2
        if size == 0 or begin + size > len(received):
            break
        parts.append(received[begin : begin + size])
        length += size
        ends.append((length, begin + size))
        at = begin + size + 2
    return b"".join(parts), ends


def _count_faults(text: str, expected: int) -> tuple[int, int]:
    """How many of the numbers 0..expected-1 are missing, and how many came out of turn."""
    words = text.split()
    if words == [str(number) for number in range(expected)]:
        return 0, 0
    distinct = set(words)
    missing = sum(1 for number in range(expected) if str(number) not in distinct)
    out_of_turn = sum(
        1
        for before, after in zip([-1, *map(_number, words)], map(_number, words), strict=False)
        if after <= before
    )
    return missing, out_of_turn


def _number(word: str) -> int:
    return int(word) if word.isdigit() else -1
