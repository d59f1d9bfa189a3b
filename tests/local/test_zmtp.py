"""ZeroMQ's own protocol: what a DEALER says is read, however it is cut, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import RemoteProtocolError
from rbee.supervisor.local.zmtp import GREETING, READY, Message, ZmtpServer, write_message
from tests.local.raw import HELLO
from tests.local.raw import READY as CLIENTS_READY

LIMITS = (10, 100, 1000)
frames = st.tuples(*(st.binary(max_size=each) for each in LIMITS)).map(list)


def read_all(zmtp: ZmtpServer, data: bytes) -> list[Message]:
    zmtp.receive(data)
    return list(iter(zmtp.next_message, None))


@given(st.lists(frames, max_size=4), st.lists(st.integers(1, 400), max_size=20))
def test_messages_are_read_however_they_are_cut(sent: list[list[bytes]], sizes: list[int]) -> None:
    data = HELLO + b"".join(map(write_message, sent))
    zmtp, read = ZmtpServer(LIMITS), []
    for size in [*sizes, len(data)]:
        read += read_all(zmtp, data[:size])
        data = data[size:]
    assert [each.frames for each in read] == sent
    assert zmtp.is_ready
    assert not zmtp.is_in_message


@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_give_messages_or_a_protocol_error(data: bytes, is_greeted: bool) -> None:
    zmtp = ZmtpServer(LIMITS)
    try:
        for message in read_all(zmtp, HELLO + data if is_greeted else data):
            sizes = [len(each) for each in message.frames]
            assert all(size <= most for size, most in zip(sizes, LIMITS, strict=True))
    except RemoteProtocolError:
        return
    assert zmtp.unread_bytes <= sum(LIMITS) + 64


def test_the_handshake_is_a_routers() -> None:
    zmtp = ZmtpServer(LIMITS)
    assert zmtp.take_to_send() == GREETING
    assert read_all(zmtp, HELLO) == []
    assert zmtp.take_to_send() == READY
    assert zmtp.take_to_send() == b""


@given(st.integers(1001, 5000), st.integers(0, 5000))
def test_a_last_frame_that_is_too_long_is_told_at_once_and_dropped(size: int, cut: int) -> None:
    zmtp = ZmtpServer(LIMITS)
    data = HELLO + write_message([b"v", b"head", bytes(size)])
    end = len(data) - size
    told = read_all(zmtp, data[: end + min(cut, size)])
    assert told == [Message([b"v", b"head", b""], size)]
    assert zmtp.unread_bytes == 0
    rest = read_all(zmtp, data[end + min(cut, size) :] + write_message([b"a", b"b", b"c"]))
    assert rest == [Message([b"a", b"b", b"c"])]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"GET / HTTP/1.1\r\n", id="http"),
        pytest.param(GREETING[:9] + b"\x00", id="signature"),
        pytest.param(GREETING[:10] + b"\x01" + bytes(53), id="zmtp-2"),
        pytest.param(GREETING[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32), id="mechanism"),
        pytest.param(GREETING[:32] + b"\1" + bytes(31), id="as-server"),
        pytest.param(GREETING + write_message([b"early"]), id="before-ready"),
        pytest.param(GREETING + b"\x04\x06\x05READY", id="ready-without-a-type"),
        pytest.param(GREETING + CLIENTS_READY.replace(b"DEALER", b"ROUTER"), id="router"),
        pytest.param(GREETING + b"\x06" + (1 << 60).to_bytes(8, "big"), id="huge-command"),
        pytest.param(HELLO + b"\x04\x02\x01X", id="unknown-command"),
        pytest.param(HELLO + CLIENTS_READY, id="ready-again"),
        pytest.param(HELLO + b"\x05\x00", id="command-with-more"),
        pytest.param(HELLO + b"\x08\x00", id="unknown-flag"),
        pytest.param(HELLO + write_message([b"v", b"b"]), id="two-frames"),
        pytest.param(HELLO + write_message([b"v", b"b", b"c", b"d"]), id="four-frames"),
        pytest.param(HELLO + write_message([b"v" * 11, b"b", b"c"]), id="first-frame-too-long"),
        pytest.param(HELLO + b"\x01\x01v\x03" + (1 << 60).to_bytes(8, "big"), id="huge-frame"),
    ],
)
def test_what_no_client_of_ours_says_is_a_protocol_error(said: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_all(ZmtpServer(LIMITS), said)


def test_a_ping_is_answered_with_its_context() -> None:
    zmtp = ZmtpServer(LIMITS)
    read_all(zmtp, HELLO)
    zmtp.take_to_send()
    assert read_all(zmtp, b"\x04\x0a\x04PING\x00\x64abc") == []
    assert zmtp.take_to_send() == b"\x04\x08\x04PONGabc"
