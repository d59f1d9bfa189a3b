"""However bytes are cut up on their way, the same is made of them, and at much the same cost."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.http_server.guard import find_fault
from rbee.supervisor.lane import HandOver, Refused
from rbee.supervisor.lane.machine import Event
from tests.lane.corpus import CORPUS, GET, POST_HEAD
from tests.lane.harness import LIMITS, drive, new_machine
from tests.lane.mutations import compose, mutate

MUTATIONS_PER_EXAMPLE = 4


def comparable(events: list[Event]) -> list[Event | type[Refused]]:
    """Of a refusal only that it is one: of several faults, the first to arrive is told."""
    return [Refused if isinstance(event, Refused) else event for event in events]


def cut(received: bytes, chance: random.Random) -> list[bytes]:
    places = sorted(chance.randrange(len(received) + 1) for _ in range(chance.randint(1, 8)))
    starts = [0, *places]
    return [received[start:end] for start, end in zip(starts, [*places, None], strict=True)]


@pytest.mark.parametrize("received", CORPUS.values(), ids=CORPUS)
def test_same_events_come_byte_by_byte(received: bytes) -> None:
    events = drive(new_machine(), (bytes([byte]) for byte in received))
    assert comparable(events) == comparable(drive(new_machine(), [received]))


@given(seed=st.integers(0, 2**32))
def test_same_events_come_however_a_request_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(MUTATIONS_PER_EXAMPLE):
        received = chance.choice([mutate, compose])(chance)
        parts = cut(received, chance)
        assert b"".join(parts) == received
        assert comparable(drive(new_machine(), parts)) == comparable(
            drive(new_machine(), [received])
        )


@given(seed=st.integers(0, 2**32))
def test_guard_that_judges_only_what_is_new_comes_to_the_same_verdict(seed: int) -> None:
    chance = random.Random(seed)
    received, judged_bytes = b"", 0
    for part in cut(mutate(chance), chance):
        received += part
        fault = find_fault(received, LIMITS, judged_bytes)
        assert fault == find_fault(received, LIMITS)
        if fault is not None or b"\r\n\r\n" in received:
            return
        judged_bytes = len(received)


@pytest.mark.parametrize("line_end_at", range(8225, 8240))
def test_line_that_ends_at_its_limit_is_judged_alike_byte_by_byte_and_at_once(
    line_end_at: int,
) -> None:
    line = b"GET /" + b"a" * (line_end_at - 14) + b" HTTP/1.1\r\n"
    assert line.index(b"\r") == line_end_at
    received = line + b"Host: rbee\r\n\r\n"
    at_once = drive(new_machine(), [received])
    by_bytes = drive(new_machine(), (bytes([byte]) for byte in received))
    assert [type(event) for event in by_bytes] == [type(event) for event in at_once] == [Refused]
    assert isinstance(by_bytes[0], Refused)
    assert isinstance(at_once[0], Refused)
    assert by_bytes[0].status == at_once[0].status == 414


def test_head_byte_by_byte_costs_in_proportion_to_its_length() -> None:
    limits = HttpLimits()
    short = POST_HEAD + b"X-Long: " + b"a" * 1600
    long = POST_HEAD + b"X-Long: " + b"a" * (limits.header_bytes_max - len(POST_HEAD) - 100)
    short_s = min(_seconds_by_bytes(short) for _ in range(5)) / len(short)
    long_s = min(_seconds_by_bytes(long) for _ in range(5)) / len(long)
    assert long_s < 3 * short_s, f"{long_s:.2e} s for a byte of a long head, {short_s:.2e} s else"


def _seconds_by_bytes(received: bytes) -> float:
    machine = new_machine()
    begin = time.process_time()
    events = drive(machine, (bytes([byte]) for byte in received))
    seconds = time.process_time() - begin
    assert events == []
    assert machine.is_in_head
    return seconds


def test_hand_over_of_a_request_in_parts_holds_each_byte_once() -> None:
    machine = new_machine(hot=[])
    parts = [GET[:7], GET[7:30], GET[30:], b"behind"]
    assert drive(machine, parts) == [HandOver(GET + b"behind")]
