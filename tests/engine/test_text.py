"""Text that may be sent: whatever the pieces, the same text; never a part of a stop string."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rbee.engine.text import TextStream


def feed_all(stream: TextStream, *pieces: bytes) -> list[str]:
    return [stream.feed(piece) for piece in pieces]


def reference(whole: bytes, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The rules, word for word, on the whole text."""
    text = whole.decode("utf-8", "replace")
    for end in range(len(text) + 1):
        starts = [end - len(each) for each in stop if each and text[:end].endswith(each)]
        if starts:
            return text[: min(starts)], True
    return text, False


def run(pieces: list[bytes], stop: tuple[str, ...]) -> tuple[str, bool]:
    stream = TextStream(stop)
    text = "".join(feed_all(stream, *pieces)) + stream.flush()
    return text, stream.is_stopped


# Few letters and bytes, so that they meet often: ASCII, parts of é and of 🐝, and rubbish.
few_bytes = st.sampled_from(
    [b"a", b"b", b"c", b"\xc3", b"\xa9", b"\xf0", b"\x9f", b"\x90", b"\xff"]
)
pieces_of_few = st.lists(st.lists(few_bytes, max_size=5).map(b"".join), max_size=12)
stops_of_few = st.lists(st.text("abcé\ufffd🐝", max_size=4), max_size=4).map(tuple)


@given(pieces_of_few, stops_of_few)
@example([b"\xc3"], ("\ufffd",))
@example([b"abc"], ("abc", "ab", "b"))
def test_text_is_that_of_the_whole_up_to_the_first_stop_string(
    pieces: list[bytes], stop: tuple[str, ...]
) -> None:
    assert run(pieces, stop) == reference(b"".join(pieces), stop)


@given(st.lists(st.binary(max_size=6), max_size=20))
def test_any_bytes_decode_as_they_would_in_one(pieces: list[bytes]) -> None:
    assert run(pieces, ()) == (b"".join(pieces).decode("utf-8", "replace"), False)


@given(pieces_of_few, stops_of_few)
def test_what_is_held_back_is_only_what_may_become_a_stop_string_or_a_character(
    pieces: list[bytes], stop: tuple[str, ...]
) -> None:
    stream = TextStream(stop)
    sent = "".join(feed_all(stream, *pieces))
    if stream.is_stopped:
        return
    held = stream.flush()
    prefixes = {each[:size] for each in stop for size in range(1, len(each))}
    if not stream.is_stopped:
        whole = b"".join(pieces).decode("utf-8", "replace")
        assert sent + held == whole
        assert held == "" or held in prefixes or held.rstrip("\ufffd") in {"", *prefixes}


def test_a_character_comes_when_its_last_byte_does() -> None:
    stream = TextStream(())
    assert feed_all(stream, b"x\xf0\x9f", b"\x90", b"\x9d!") == ["x", "", "🐝!"]


def test_half_a_character_at_the_end_becomes_a_replacement() -> None:
    stream = TextStream(())
    assert feed_all(stream, b"caf\xc3") == ["caf"]
    assert stream.flush() == "\ufffd"


def test_a_stop_string_in_several_pieces_is_never_sent() -> None:
    stream = TextStream(("</end>",))
    assert feed_all(stream, b"one <", b"/e", b"nd", b"> two") == ["one ", "", "", ""]
    assert stream.is_stopped
    assert stream.feed(b"more") == ""
    assert stream.flush() == ""


def test_what_only_looked_like_a_stop_string_is_sent_late() -> None:
    stream = TextStream(("</end>",))
    assert feed_all(stream, b"a </e", b"m> b") == ["a ", "</em> b"]
    assert not stream.is_stopped


def test_the_stop_string_that_ends_first_wins() -> None:
    assert run([b"xabcy"], ("abc", "ab")) == ("x", True)
    assert run([b"xabcd"], ("abcd", "bc")) == ("xa", True)


def test_of_stop_strings_that_end_together_the_one_that_starts_first_wins() -> None:
    assert run([b"xabc"], ("c", "bc", "abc")) == ("x", True)


def test_a_stop_string_may_begin_within_a_failed_one() -> None:
    assert run([b"aab", b"aac", b"!"], ("aac",)) == ("aab", True)


def test_an_empty_stop_string_stops_nothing() -> None:
    assert run([b"abc"], ("",)) == ("abc", False)


@pytest.mark.parametrize("special", ["]", "^", "-", "\\", "[", ".", "\n"])
def test_a_stop_string_may_begin_with_any_character(special: str) -> None:
    assert run([f"a{special}".encode(), b"!b"], (f"{special}!",)) == ("a", True)


def test_a_long_answer_costs_no_more_per_token_than_a_short_one() -> None:
    """The text that a stop string nearly matches all along is the worst: it is all held once."""
    stop = ("a" * 255 + "b",)

    def cpu_s(tokens: int) -> float:
        stream = TextStream(stop)
        began_s = time.thread_time()
        for _ in range(tokens):
            stream.feed(b"aaaa")
        return time.thread_time() - began_s

    short = min(cpu_s(1_000) for _ in range(3))
    assert min(cpu_s(8_000) for _ in range(3)) < 8 * short * 3  # quadratic would be 64
