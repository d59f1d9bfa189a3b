"""What the lane makes of one connection: whole requests, others handed over, others refused."""

import json
import tracemalloc

import pytest

from rbee.supervisor.http_server.guard import find_fault
from rbee.supervisor.http_server.protocol import PIPELINED_BYTES_MAX
from rbee.supervisor.lane import HandOver, Head, Refused, Request
from tests.http_server.test_guard import REFUSED
from tests.lane.corpus import CORPUS, GET, POST, POST_HEAD
from tests.lane.harness import (
    BODY_BYTES_MAX,
    LIMITS,
    drive,
    handed_over,
    new_machine,
    refused_of,
    request_of,
)

CHAT = ("POST", b"/v1/chat/completions")
PUT = b"PUT /url HTTP/1.1\r\nHost: rbee\r\n"

HANDED_OVER = [
    "HTTP/1.0",
    "a method of RTSP",
    "a name with an at sign",
    "a name with a control character",
    "a name with a space",
    "a name with a tab behind",
    "a value with a control character",
    "a value with DEL",
    "a length behind a space",
    "a length for GET",
    "an expectation",
    "an odd expectation",
    "an upgrade to something",
    "an upgrade with a body",
    "an encoding in a trailer",
    "a chunk extension",
    "a body over the limit",
    "the same host twice",
    "no name",
]


def test_whole_request_is_told_with_its_head_and_body() -> None:
    machine = new_machine(hot=[CHAT])
    machine.receive(POST_HEAD + b"Content-Length: 2\r\nX-Empty:\r\n\r\n{}")
    request = request_of(machine.next_event())
    assert request.head.method == "POST"
    assert request.head.target == b"/v1/chat/completions"
    assert request.head.headers[:2] == [
        (b"host", b"127.0.0.1:7233"),
        (b"accept-encoding", b"gzip, deflate"),
    ]
    assert request.head.headers[-2:] == [(b"content-length", b"2"), (b"x-empty", b"")]
    assert request.body == b"{}"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v1/models?x=1", "/v1/models"),
        (b"/v1/%6dodels", "/v1/models"),
        (b"/%ce%b4?%41", "/δ"),
        (b"/%ff%zz%", "/�%zz%"),
        (b"//a#b", "//a#b"),
    ],
)
def test_path_is_decoded_and_has_no_query(target: bytes, path: str) -> None:
    machine = new_machine(hot=[("GET", target)])
    machine.receive(b"GET " + target + b" HTTP/1.1\r\nHost: rbee\r\n\r\n")
    assert request_of(machine.next_event()).head == Head("GET", target, path, [(b"host", b"rbee")])


def test_request_on_another_route_is_handed_over_with_all_its_bytes() -> None:
    machine = new_machine(hot=[CHAT])
    behind = POST_HEAD.replace(b"/v1/chat/completions", b"/v1/embeddings")
    machine.receive(POST)
    request_of(machine.next_event())
    machine.receive(behind + b"Content-Length: 3\r\n\r\nab")
    assert machine.next_event() is None
    machine.answer(200, [], b"")
    assert handed_over(machine.next_event()) == behind + b"Content-Length: 3\r\n\r\nab"
    assert not machine.can_go_on


def test_hand_over_is_decided_at_the_end_of_the_head() -> None:
    machine = new_machine()
    head = PUT + b"Content-Length: 100000\r\n\r\n"
    machine.receive(head[:-1])
    assert machine.next_event() is None
    machine.receive(head[-1:])
    assert handed_over(machine.next_event()) == head


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"GET", b"post"])
def test_another_method_on_a_hot_route_never_reaches_the_app(method: bytes) -> None:
    machine = new_machine(hot=[CHAT])
    machine.receive(method + b" /v1/chat/completions HTTP/1.1\r\nHost: rbee\r\n\r\n")
    assert isinstance(machine.next_event(), HandOver | Refused)


@pytest.mark.parametrize("name", HANDED_OVER)
def test_what_is_unusual_is_handed_over(name: str) -> None:
    machine = new_machine()
    machine.receive(CORPUS[name])
    assert handed_over(machine.next_event()) == CORPUS[name]
    assert machine.next_event() is None
    assert not machine.can_go_on


@pytest.mark.parametrize(("status", "received"), REFUSED.values(), ids=REFUSED)
def test_a4_what_the_guard_refuses_is_refused_in_the_same_words(
    status: int, received: bytes
) -> None:
    machine = new_machine()
    machine.receive(received)
    event = machine.next_event()
    fault = find_fault(received, LIMITS)
    if fault is None:  # it is h11 that refuses this one, or its body
        assert handed_over(event) == received
        return
    refused = refused_of(event)
    head, _, body = refused.answer.partition(b"\r\n\r\n")
    assert refused.status == fault.status == status
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["error"]["message"] == fault.message
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert machine.next_event() is None
    assert not machine.can_go_on


def test_a_head_that_never_ends_is_refused_at_its_limit() -> None:
    machine = new_machine()
    machine.receive(PUT + b"a: " + b"b" * LIMITS.header_bytes_max)
    assert refused_of(machine.next_event()).status == 431


def test_nothing_is_told_of_a_connection_that_is_over() -> None:
    machine = new_machine()
    machine.receive(b"\0")
    refused_of(machine.next_event())
    machine.receive(GET)
    assert machine.next_event() is None
    assert not machine.has_unread


def test_next_request_waits_for_the_answer_to_the_one_before() -> None:
    machine = new_machine()
    machine.receive(POST + GET)
    assert request_of(machine.next_event()).head.method == "POST"
    assert machine.next_event() is None
    assert machine.has_unread
    machine.begin(200, [])
    assert machine.next_event() is None
    machine.finish()
    assert request_of(machine.next_event()).head.method == "GET"
    assert not machine.has_unread


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_what_is_sent_ahead_is_kept_within_a_bound_and_taken_after_the_answer(
    is_streamed: bool,
) -> None:
    machine = new_machine()
    machine.receive(POST)
    request_of(machine.next_event())
    if is_streamed:
        machine.begin(200, [])
    ahead = GET * (PIPELINED_BYTES_MAX // len(GET))
    machine.receive(ahead)
    assert not machine.is_full
    machine.receive(GET)
    assert machine.is_full
    assert machine.next_event() is None
    if is_streamed:
        machine.finish()
    else:
        machine.answer(200, [], b"")
    assert not machine.is_full
    assert len(drive(machine, [b""])) == len(ahead + GET) // len(GET)


def test_what_is_waited_for_can_be_told_for_the_timeouts() -> None:
    machine = new_machine()

    def waits() -> tuple[bool, bool, bool]:
        return machine.is_in_head, machine.is_in_body, machine.has_unread

    assert waits() == (False, False, False)
    head, body = POST[:-10], POST[-10:]
    machine.receive(head[:1])
    assert machine.next_event() is None
    assert waits() == (True, False, True)
    machine.receive(head[1:] + body[:1])
    assert machine.next_event() is None
    assert waits() == (False, True, False)
    machine.receive(body[1:] + b"{")
    request_of(machine.next_event())
    assert waits() == (False, False, True)
    machine.answer(200, [], b"")
    assert waits() == (True, False, True)


def test_idle_connection_holds_no_part_of_its_last_request() -> None:
    body = b"a" * BODY_BYTES_MAX
    machine = new_machine()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        machine.receive(PUT + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        request_of(machine.next_event())
        machine.answer(200, [], b"")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096


@pytest.mark.parametrize("first", ["close", "close in a list", "close in a second header"])
def test_client_that_says_close_is_answered_once(first: str) -> None:
    events = drive(new_machine(), [CORPUS[first]])
    assert len(events) == 1
    assert isinstance(events[0], Request)


@pytest.mark.parametrize(
    "first", ["something like close", "a proxy's close", "an empty Connection"]
)
def test_client_that_says_no_close_is_answered_on(first: str) -> None:
    events = drive(new_machine(), [CORPUS[first]])
    assert [type(event) for event in events] == [Request, Request]


def test_draining_before_a_request_makes_its_answer_the_last() -> None:
    machine = new_machine()
    machine.close_after()
    assert machine.can_go_on
    machine.receive(GET + GET)
    request_of(machine.next_event())
    assert b"\r\nconnection: close\r\n" in machine.answer(200, [], b"")
    assert not machine.can_go_on
    assert machine.next_event() is None


def test_draining_while_an_answer_is_streamed_lets_it_end_and_the_next_one_come() -> None:
    machine = new_machine()
    machine.receive(GET + GET)
    request_of(machine.next_event())
    machine.begin(200, [])
    machine.close_after()
    assert machine.can_go_on
    assert machine.chunk(b"abc") == b"3\r\nabc\r\n"
    assert machine.finish() == b"0\r\n\r\n"
    assert machine.can_go_on
    request_of(machine.next_event())
    assert b"\r\nconnection: close\r\n" in machine.answer(200, [], b"")
    assert not machine.can_go_on


def test_answer_that_nobody_asked_for_is_our_bug() -> None:
    machine = new_machine()
    with pytest.raises(AssertionError, match="no answer is due"):
        machine.answer(200, [], b"")
    machine.receive(GET)
    request_of(machine.next_event())
    machine.begin(200, [])
    with pytest.raises(AssertionError, match="no answer is due"):
        machine.answer(200, [], b"")
