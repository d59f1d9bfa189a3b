"""What a client got for a request: judged. Pure.

Rule 1: there are three endings. Served: the full answer, right to the byte. Refused: an error of
        the documented shape with a documented code. Lost: anything else.
"""

import enum
import json
from dataclasses import dataclass
from typing import Any, Final

from rbee.errors import ErrorCode

_CODES: Final = frozenset(code.value for code in ErrorCode)
_SHOWN_MAX: Final = 60

# Refusals with `Retry-After`: docs/errors.md, those with status 429 and 503.
RETRIABLE: Final = frozenset({
    "authentication_throttled", "rate_limited", "queue_full", "draining", "model_unavailable",
    "worker_failed", "jwt_unavailable", "store_unavailable", "audit_unavailable",
})  # fmt: skip

# How the words of a loss begin where the connection ended too early.
BROKEN_OFF: Final = "broken off"


class End(enum.Enum):
    """How a request ended for its client."""

    SERVED = "served"
    REFUSED = "refused"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the one right answer to it."""

    path: str
    body: dict[str, Any]
    text: str  # of each choice
    tokens: int  # of each choice

    @property
    def is_streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def choices(self) -> int:
        return int(self.body.get("n", 1))


@dataclass(frozen=True, slots=True)
class Judged:
    """How it ended; for a refusal its code, for a loss what was wrong."""

    end: End
    what: str = ""

    @property
    def may_ask_again(self) -> bool:
        """Whether the documents tell the client to try again."""
        return self.end is End.REFUSED and self.what in RETRIABLE


def numbers(tokens: int) -> str:
    """What the synthetic engine answers."""
    return "".join(f"{number} " for number in range(tokens))


def judge_answer(asked: Asked, status: int, raw: bytes) -> Judged:
    """Judge an answer that has come in whole, as far as HTTP can tell."""
    try:
        if not asked.is_streamed or status != 200:
            return _judge_whole(asked, status, json.loads(raw))
        return _judge_stream(asked, raw)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return Judged(End.LOST, f"status {status}, not of the documented shape: {error!r}")


def _judge_whole(asked: Asked, status: int, document: dict[str, Any]) -> Judged:
    if status != 200:
        return _refusal(document["error"])
    texts = {choice["index"]: _text(choice) for choice in document["choices"]}
    reasons = {choice["index"]: choice["finish_reason"] for choice in document["choices"]}
    return _compare(asked, texts, reasons, document["usage"]["completion_tokens"])


def _judge_stream(asked: Asked, raw: bytes) -> Judged:
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n") if line.startswith(b"data")]
    if not lines or lines[-1] != b"[DONE]":
        return Judged(End.LOST, f"{BROKEN_OFF} after {len(lines)} events")
    events = [json.loads(line) for line in lines[:-1]]
    if errors := [event["error"] for event in events if "error" in event]:
        return _refusal(errors[0])
    if len({event["id"] for event in events}) != 1:
        return Judged(End.LOST, "the id changed in mid-stream")
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        at = choice["index"]
        if at in reasons:
            return Judged(End.LOST, f"choice {at} went on after its finish_reason")
        texts[at] = texts.get(at, "") + _text(choice)
        if choice["finish_reason"]:
            reasons[at] = choice["finish_reason"]
    return _compare(asked, texts, reasons, events[-1]["usage"]["completion_tokens"])


def _text(choice: dict[str, Any]) -> str:
    part = choice.get("delta") or choice.get("message") or {}
    return choice.get("text") or part.get("content") or ""


def _refusal(error: dict[str, Any]) -> Judged:
    code = error["code"]
    if code not in _CODES or not error["message"]:
        return Judged(End.LOST, f"an error without a documented code: {code!r}")
    return Judged(End.REFUSED, code)


def _compare(asked: Asked, texts: dict[int, str], reasons: dict[int, str], tokens: int) -> Judged:
    if sorted(reasons) != list(range(asked.choices)):
        return Judged(End.LOST, f"finish reasons {reasons}, expected of {asked.choices} choices")
    for at, text in texts.items():
        if text != asked.text:
            return Judged(End.LOST, f"choice {at}: {_difference(asked.text, text)}")
    if tokens != asked.tokens * asked.choices:
        return Judged(End.LOST, f"usage says {tokens} tokens, not {asked.tokens * asked.choices}")
    return Judged(End.SERVED)


def _difference(wanted: str, found: str) -> str:
    """Where they part. The texts are the drill's own: no client's words are shown."""
    pairs = enumerate(zip(wanted, found, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(wanted), len(found)))
    shown = slice(max(0, at - 10), at + _SHOWN_MAX)
    return f"wrong at character {at}: expected {wanted[shown]!r}, found {found[shown]!r}"
