"""What the audit log hears of requests: their begin and their end, and never their text."""

import hashlib
from typing import Final

import msgspec

from rbee.ask import Ask
from rbee.audit import Audit
from rbee.audit.events import Outcome, RequestEnd, RequestStart
from rbee.errors import ErrorCode
from rbee.supervisor.api.order import Order
from rbee.supervisor.api.visit import Visit

ANONYMOUS: Final = "anonymous"  # who has shown nothing

# What is refused so was not tried, unless a token of it was made, or a worker has failed with it.
_DENIED: Final = frozenset(
    {
        ErrorCode.QUEUE_FULL, ErrorCode.DRAINING, ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.MODEL_UNAVAILABLE, ErrorCode.REQUEST_QUARANTINED, ErrorCode.RATE_LIMITED,
    }
)  # fmt: skip


def record_start(audit: Audit, visit: Visit, order: Order) -> None:
    """A request was read, and is about to be submitted."""
    prompts = b"\n".join(_prompt(ask) for ask in order.asks[:: order.choices_per_prompt])
    details = RequestStart(
        route=visit.route,
        model=order.model,
        stream=order.is_streamed,
        choices=len(order.asks),
        prompt_bytes=len(prompts),
        prompt_sha256=hashlib.sha256(prompts).hexdigest(),
    )
    audit.record(details, actor=actor_of(visit), correlation_id=visit.correlation_id)


def record_end(audit: Audit, visit: Visit, code: str, duration_s: float) -> None:
    """It is over, however it ended."""
    details = RequestEnd(
        route=visit.route,
        model=visit.model,
        code=code,
        prompt_tokens=visit.facts.get("prompt_tokens", 0),
        completion_tokens=visit.facts.get("completion_tokens", 0),
        duration_ms=round(duration_s * 1000),
    )
    outcome = Outcome.SUCCESS if code == "ok" else Outcome.FAILURE
    was_tried = details.completion_tokens > 0 or visit.facts.get("failovers", 0) > 0
    if code in _DENIED and not was_tried:
        outcome = Outcome.DENIED
    audit.record(
        details, actor=actor_of(visit), outcome=outcome, correlation_id=visit.correlation_id
    )


def actor_of(visit: Visit) -> str:
    """Who makes a request, as the audit log names them."""
    return ANONYMOUS if visit.principal is None else visit.principal.actor


def _prompt(ask: Ask) -> bytes:
    """The prompt of an ask as JSON: the list of its messages, its text, or its token ids."""
    if ask.messages:
        return msgspec.json.encode(ask.messages)
    return msgspec.json.encode(ask.prompt_ids if ask.prompt is None else ask.prompt)
