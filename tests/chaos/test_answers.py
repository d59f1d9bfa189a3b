"""The judge of answers: what counts as served, as refused, and as lost."""

import json
from typing import Any

import pytest

from rbee.chaos.answers import Asked, End, judge_answer, numbers

BODY = {"model": "first", "max_tokens": 3}
WHOLE = Asked("/v1/completions", BODY, numbers(3), 3)
STREAM = Asked("/v1/completions", {**BODY, "stream": True}, numbers(3), 3)


def whole(text: str = "0 1 2 ", tokens: int = 3, reason: str = "length") -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}).encode()


def chunk(text: str, reason: str | None = None, name: str = "a") -> dict[str, Any]:
    return {"id": name, "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def usage(tokens: int = 3) -> dict[str, Any]:
    return {"id": "a", "choices": [], "usage": {"completion_tokens": tokens}}


def stream(*events: dict[str, Any], done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


GOOD = (chunk("0 "), chunk("1 "), chunk("2 ", "length"), usage())


def test_the_full_answer_is_served() -> None:
    assert judge_answer(WHOLE, 200, whole()).end is End.SERVED
    assert judge_answer(STREAM, 200, stream(*GOOD)).end is End.SERVED


def test_an_answer_to_a_chat_is_read_too() -> None:
    asked = Asked("/v1/chat/completions", BODY, numbers(1), 1)
    choice = {"index": 0, "message": {"content": "0 "}, "finish_reason": "length"}
    raw = json.dumps({"choices": [choice], "usage": {"completion_tokens": 1}}).encode()
    assert judge_answer(asked, 200, raw).end is End.SERVED


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (whole("0 2 "), "wrong at character 2"),
        (whole("0 1 1 2 "), "wrong at character 4"),
        (whole(tokens=4), "usage says 4"),
        (b"{", "not of the documented shape"),
        (b'{"choices": []}', "not of the documented shape"),
    ],
)
def test_a_whole_answer_that_is_not_right_is_lost(raw: bytes, why: str) -> None:
    judged = judge_answer(WHOLE, 200, raw)
    assert judged.end is End.LOST
    assert why in judged.what


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "broken off"),
        (stream(*GOOD, done=False), "broken off"),
        (stream(chunk("0 "), chunk("0 "), chunk("1 2 ", "length"), usage()), "wrong at"),
        (stream(chunk("0 "), chunk("2 ", "length"), usage()), "wrong at"),
        (stream(chunk("0 "), chunk("1 ", name="b"), chunk("2 ", "length"), usage()), "id changed"),
        (stream(chunk("0 1 ", "length"), chunk("2 "), usage()), "went on after"),
        (stream(chunk("0 1 2 "), usage()), "finish reasons"),
        (stream(chunk("0 1 2 ", "length"), usage(5)), "usage says 5"),
        (stream(chunk("0 1 2 ", "length")), "not of the documented shape"),
    ],
)
def test_a_stream_that_is_not_right_is_lost(raw: bytes, why: str) -> None:
    judged = judge_answer(STREAM, 200, raw)
    assert judged.end is End.LOST
    assert why in judged.what


def test_a_documented_error_is_a_refusal_before_and_in_a_stream() -> None:
    error = {"error": {"code": "draining", "message": "the server is shutting down"}}
    for asked in (WHOLE, STREAM):
        judged = judge_answer(asked, 503, json.dumps(error).encode())
        assert (judged.end, judged.what) == (End.REFUSED, "draining")
    judged = judge_answer(STREAM, 200, stream(chunk("0 "), error))
    assert (judged.end, judged.what) == (End.REFUSED, "draining")


@pytest.mark.parametrize("code", ["no_such_code", "", None])
def test_an_error_without_a_documented_code_is_a_loss(code: str | None) -> None:
    raw = json.dumps({"error": {"code": code, "message": "what?"}}).encode()
    assert judge_answer(WHOLE, 500, raw).end is End.LOST


def test_each_choice_must_be_there_and_right() -> None:
    asked = Asked("/v1/completions", {**BODY, "n": 2}, numbers(3), 3)
    choices = [{"index": at, "text": "0 1 2 ", "finish_reason": "length"} for at in range(2)]
    good = {"choices": choices, "usage": {"completion_tokens": 6}}
    assert judge_answer(asked, 200, json.dumps(good).encode()).end is End.SERVED
    assert judge_answer(asked, 200, whole()).end is End.LOST
