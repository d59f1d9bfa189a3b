"""What the benchmarks count: every token once, at its time, and what is missing."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
figures: Any = importlib.import_module("figures")
transcript: Any = importlib.import_module("transcript")

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def event(content: str = "", finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def raw(*arrivals: tuple[float, bytes]) -> Any:
    """A complete answer that came in these pieces."""
    found = transcript.Raw(begun_s=0.0, ended="complete")
    for time_s, data in arrivals:
        found.times_s.append(time_s)
        found.received += data
        found.ends.append(len(found.received))
    return found


def answer(*contents: str) -> bytes:
    events = [*map(event, contents), event(finish="length"), b"data: [DONE]\n\n"]
    return HEAD + b"".join(map(chunk, events)) + b"0\r\n\r\n"


def test_each_token_has_the_time_of_the_piece_that_completed_its_event() -> None:
    whole = answer("0 ", "1 ", "2 ")
    middle = whole.index(b'"1 "')  # in the middle of the second event
    read = transcript.read_transcript(raw((1.0, whole[:middle]), (2.0, whole[middle:])), 3)
    assert list(read.tokens_s) == [1.0, 2.0, 2.0]
    assert (read.lost, read.duplicated, read.fault) == (0, 0, "")


@pytest.mark.parametrize(
    ("contents", "lost", "duplicated"),
    [
        (("0 ", "2 "), 1, 0),
        (("0 ", "1 ", "1 ", "2 "), 0, 1),
        (("0 ", "2 ", "1 "), 0, 1),
        ((), 3, 0),
    ],
    ids=["lost", "doubled", "out of turn", "nothing"],
)
def test_a_token_that_is_lost_doubled_or_out_of_turn_shows(
    contents: tuple[str, ...], lost: int, duplicated: int
) -> None:
    read = transcript.read_transcript(raw((1.0, answer(*contents))), 3)
    assert (read.lost, read.duplicated) == (lost, duplicated)


@pytest.mark.parametrize(
    ("received", "fault"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 503 Service Unavailable"),
        (answer("0 ").replace(b"[DONE]", b"{}"), "no [DONE]"),
        (HEAD + chunk(b'data: {"error":{"code":"x"}}\n\n'), "error event"),
        (b"HTTP/1.1 200", "no complete head"),
    ],
    ids=["refused", "not done", "error event", "cut head"],
)
def test_a_stream_that_does_not_end_as_it_should_has_a_fault(received: bytes, fault: str) -> None:
    assert fault in transcript.read_transcript(raw((1.0, received)), 1).fault


def test_delay_is_lateness_against_the_pace_from_the_earliest_token() -> None:
    # 10 tokens/s. The second token is the earliest against the pace; the last is 0.3 s late.
    contents = [f"{number} " for number in range(3)]
    body = answer(*contents)
    ends = [body.index(f'"{number} "'.encode()) for number in range(3)]
    pieces = [body[: ends[1]], body[ends[1] : ends[2]], body[ends[2] :]]
    read = transcript.read_transcript(raw(*zip((1.1, 1.1, 1.5), pieces, strict=True)), 3)
    assert list(read.tokens_s) == [1.1, 1.1, 1.5]
    assert figures._delays(read, 10.0, 0.0, 9.0) == pytest.approx([0.1, 0.0, 0.3])
