"""Which heads llhttp and we read alike, and where a request ends."""

import pytest

from rbee.supervisor.lane.head import Framing, Head, find_framing, read_head

BODY_BYTES_MAX = 100
HOST = (b"host", b"rbee")


def head_with(*headers: tuple[bytes, bytes]) -> Head:
    return Head("POST", b"/", "/", list(headers))


@pytest.mark.parametrize(
    "received",
    [
        b"GET / HTTP/1.1\r\nHost: rbee\r\n",
        b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"",
    ],
    ids=["not whole", "two", "two spaces", "HTTP/1.0", "an upgrade", "an answer", "nothing"],
)
def test_what_is_not_one_plain_head_is_not_read(received: bytes) -> None:
    assert read_head(received) is None


def test_names_are_in_lower_case_and_values_without_blanks_around() -> None:
    received = b"GET / HTTP/1.1\r\nHOST: \t a  b \t\r\nA:\r\na:c\r\n\r\n"
    assert read_head(received) == Head(
        "GET", b"/", "/", [(b"host", b"a  b"), (b"a", b""), (b"a", b"c")]
    )


@pytest.mark.parametrize(
    ("headers", "framing"),
    [
        ([HOST], Framing(0, is_last=False)),
        ([HOST, (b"content-length", b"0")], Framing(0, is_last=False)),
        ([HOST, (b"content-length", b"0100")], Framing(100, is_last=False)),
        ([(b"a", b""), HOST, (b"a", b"")], Framing(0, is_last=False)),
        ([HOST, (b"connection", b"Close")], Framing(0, is_last=True)),
        ([HOST, (b"content-length", b"101")], None),
        ([HOST, (b"content-length", b"+5")], None),
        ([HOST, (b"content-length", b"0x5")], None),
        ([HOST, (b"content-length", b"")], None),
        ([HOST, (b"transfer-encoding", b"chunked")], None),
        ([HOST, (b"expect", b"100-continue")], None),
        ([HOST, (b"upgrade", b"h2c")], None),
        ([HOST, HOST], None),
        ([], None),
    ],
)
def test_request_ends_where_its_length_says_or_it_is_not_for_the_lane(
    headers: list[tuple[bytes, bytes]], framing: Framing | None
) -> None:
    assert find_framing(head_with(*headers), BODY_BYTES_MAX) == framing
