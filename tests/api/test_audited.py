"""What the audit log says of how a request ended."""

import pytest

from rbee.audit.events import RequestEnd
from rbee.supervisor.api.audited import record_end
from rbee.supervisor.api.visit import Visit
from tests.access.keys import HeardAudit


@pytest.mark.parametrize(
    ("code", "facts", "outcome"),
    [
        ("ok", {"completion_tokens": 3}, "success"),
        ("draining", {}, "denied"),
        ("queue_full", {"completion_tokens": 0}, "denied"),
        ("draining", {"completion_tokens": 47}, "failure"),
        ("model_unavailable", {"completion_tokens": 1}, "failure"),
        ("request_quarantined", {}, "denied"),
        ("request_quarantined", {"failovers": 1}, "failure"),
        ("deadline_exceeded", {}, "failure"),
    ],
)
def test_only_what_was_not_tried_is_denied(code: str, facts: dict[str, int], outcome: str) -> None:
    audit, visit = HeardAudit(), Visit("POST", {}, "cid", 0.0, model="m", facts=dict(facts))
    record_end(audit, visit, code, 1.0)
    [(_, told, details)] = audit.heard
    assert isinstance(details, RequestEnd)
    assert (told, details.code) == (outcome, code)
