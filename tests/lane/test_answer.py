"""What the lane answers, as a client reads it."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import LocalProtocolError
from rbee.supervisor.lane import DateCache, Headers, Machine
from tests.lane.harness import DATE, new_machine, request_of

JSON: Headers = [(b"content-type", b"application/json"), (b"x-request-id", b"abc")]


def asked(method: str = "GET") -> Machine:
    machine = new_machine()
    machine.receive(method.encode() + b" / HTTP/1.1\r\nHost: rbee\r\n\r\n")
    request_of(machine.next_event())
    return machine


def read(answer: bytes, method: str = "GET") -> tuple[h11.Response, bytes, h11.Connection]:
    """A whole answer, and nothing behind it, as a client reads it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "rbee")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response, body = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += bytes(event.data)
    assert client.trailing_data == (b"", False)
    return response, body, client


def test_whole_answer_is_these_bytes() -> None:
    assert asked().answer(404, JSON, b"{}") == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nx-request-id: abc\r\n"
        b"content-length: 2\r\ndate: " + DATE + b"\r\n\r\n{}"
    )


def test_streamed_answer_is_these_bytes() -> None:
    machine = asked()
    assert machine.begin(200, [(b"content-type", b"text/event-stream")]) == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        b"date: " + DATE + b"\r\n\r\n"
    )
    assert machine.chunk(b"a" * 26) == b"1a\r\n" + b"a" * 26 + b"\r\n"
    assert machine.finish() == b"0\r\n\r\n"


@given(body=st.binary(max_size=300), status=st.sampled_from([200, 400, 429, 500, 503, 599]))
def test_client_reads_the_body_and_may_go_on(body: bytes, status: int) -> None:
    machine = asked()
    response, got, client = read(machine.answer(status, JSON, body))
    assert (response.status_code, got) == (status, body)
    assert dict(response.headers)[b"date"] == DATE
    assert machine.can_go_on
    client.start_next_cycle()


@given(payloads=st.lists(st.binary(max_size=40)))
def test_client_reads_the_chunks_whatever_they_are(payloads: list[bytes]) -> None:
    machine = asked()
    answer = machine.begin(200, JSON)
    answer += b"".join(machine.chunk(payload) for payload in payloads) + machine.finish()
    _, got, client = read(answer)
    assert got == b"".join(payloads)
    client.start_next_cycle()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_answer_without_body_has_none_and_the_next_can_be_read(
    method: str, status: int, is_streamed: bool
) -> None:
    machine = asked(method)
    if is_streamed:
        answer = machine.begin(status, JSON) + machine.chunk(b"body") + machine.finish()
    else:
        answer = machine.answer(status, JSON, b"body")
    response, got, client = read(answer, method)
    assert got == b""
    framing = {b"content-length", b"transfer-encoding"} & dict(response.headers).keys()
    expected = b"transfer-encoding" if is_streamed else b"content-length"
    assert framing == ({expected} if method == "HEAD" else set())
    client.start_next_cycle()


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_app_may_say_that_an_answer_is_the_last(is_streamed: bool) -> None:
    machine = asked()
    headers = [*JSON, (b"connection", b"close")]
    if is_streamed:
        answer = machine.begin(413, headers) + machine.finish()
    else:
        answer = machine.answer(413, headers, b"{}")
    assert answer.count(b"connection: close") == 1
    assert not machine.can_go_on
    _, _, client = read(answer)
    assert client.their_state is h11.MUST_CLOSE


@pytest.mark.parametrize(
    "header",
    [(b"x-id", b"a\r\nset-cookie: b"), (b"x-id", b"a\nb"), (b"x\r\ny", b"a"), (b"x-id", b"\0")],
)
def test_header_that_would_be_read_as_more_than_one_line_is_not_sent(
    header: tuple[bytes, bytes],
) -> None:
    with pytest.raises(LocalProtocolError, match="must be one line"):
        asked().answer(200, [header], b"")
    with pytest.raises(LocalProtocolError, match="must be one line"):
        asked().begin(200, [header])


def test_framing_is_not_for_the_app_to_say() -> None:
    with pytest.raises(AssertionError, match="framing"):
        asked().answer(200, [(b"content-length", b"5")], b"")


def test_date_is_written_once_in_a_second() -> None:
    now_s = 1_795_444_543.9
    date = DateCache(lambda: now_s)
    first = date()
    assert first == b"Mon, 23 Nov 2026 14:35:43 GMT"
    assert date() is first
    now_s = 1_795_444_544.0
    assert date() == b"Mon, 23 Nov 2026 14:35:44 GMT"
