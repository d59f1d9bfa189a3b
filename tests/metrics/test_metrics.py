"""What is counted, how it reads, and that it is documented."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from rbee.audit import AuditState
from rbee.metrics import Metrics, families
from rbee.metrics.distribution import Distribution
from rbee.metrics.exposition import OPENMETRICS, expose
from rbee.metrics.families import FAMILIES, Kind
from rbee.supervisor.access.failures import REASONS
from rbee.supervisor.access.jwt.form import Reason
from rbee.supervisor.api.readings import AUDIT_STATES
from rbee.supervisor.lifecycle import WorkerState
from rbee.supervisor.slot import SlotState
from rbee.supervisor.views import WORKER_STATES

DOCS = Path(__file__).parents[2] / "docs"
BOUNDS = (0.1, 1.0, 10.0)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    text = expose(metrics.readings(), "").body.decode()
    for family in read_text(text):
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return each.value
    return None


# --- the table


def test_every_metric_is_documented_as_it_is_and_no_other() -> None:
    told = re.findall(
        r"^\| `(rbee_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$",
        (DOCS / "metrics.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert told == [
        (each.name, each.kind.value, ", ".join(f"`{label}`" for label in each.labels), each.help)
        for each in FAMILIES
    ]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_and_units_are_as_prometheus_wants_them(family: families.Family) -> None:
    assert re.fullmatch(r"rbee_[a-z]+(_[a-z]+)*", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert not re.search(r"milli|kilo|percent|_ms$|_count$|_sum$|_bucket$", family.name)
    if family.kind is Kind.HISTOGRAM:
        assert family.name.endswith("_seconds")
    assert family.help
    assert family.help.isprintable()
    assert not {"id", "key", "address", "le", "job", "instance"} & set(family.labels)


def test_names_are_given_once() -> None:
    assert max(Counter(each.name for each in FAMILIES).values()) == 1


def test_the_states_that_are_told_are_those_that_there_are() -> None:
    live = [state.value for state in WorkerState if state is not WorkerState.GONE]
    empty = [state.value for state in SlotState if state is not SlotState.FILLED]
    assert sorted(WORKER_STATES) == sorted([*live, *empty])
    assert get_args(get_type_hints(AuditState)["state"]) == AUDIT_STATES
    assert set(Reason) <= set(REASONS)


# --- distributions


@given(st.lists(st.floats(0, 100), max_size=50))
def test_a_distribution_counts_each_value_at_its_bound_and_above(values: list[float]) -> None:
    spread = Distribution(BOUNDS)
    for value in values:
        spread.observe(value)
    told = dict(spread.cumulative())
    assert told["+Inf"] == spread.count == len(values)
    for bound in BOUNDS:
        assert told[repr(bound)] == sum(value <= bound for value in values)
    assert spread.sum == pytest.approx(sum(values))


def test_tokens_that_came_together_share_the_time() -> None:
    metrics = Metrics([("a-0", "a")])
    metrics.meter("a").first_came(2, 0.5)
    metrics.meter("a").more_came(4, 0.2)
    assert sample(metrics, "rbee_inter_token_time_seconds_count", model="a") == 4
    assert sample(metrics, "rbee_inter_token_time_seconds_bucket", model="a", le="0.05") == 4
    assert sample(metrics, "rbee_inter_token_time_seconds_bucket", model="a", le="0.03") == 0
    assert sample(metrics, "rbee_inter_token_time_seconds_sum", model="a") == pytest.approx(0.2)
    assert sample(metrics, "rbee_completion_tokens_total", model="a") == 6


# --- what is counted


def test_what_can_fail_is_told_as_0_before_it_has() -> None:
    metrics = Metrics([("a-0", "a")], causes=["crash"], reasons=["wrong"])
    labels = {"slot": "a-0", "model": "a"}
    assert sample(metrics, "rbee_worker_failures_total", **labels, cause="crash") == 0
    assert sample(metrics, "rbee_worker_kills_total", **labels, signal="SIGKILL") == 0
    assert sample(metrics, "rbee_auth_failures_total", reason="wrong") == 0
    metrics.worker_failed("a-0", "crash")
    assert sample(metrics, "rbee_worker_failures_total", **labels, cause="crash") == 1


def test_models_that_nobody_has_configured_make_no_series() -> None:
    metrics = Metrics([("a-0", "a")])
    for number in range(100):
        metrics.answer_ended("/v1/completions", f"made-up-{number}", "model_not_found")
        metrics.meter(f"made-up-{number}").first_came(1, 0.1)
    text = expose(metrics.readings(), "").body.decode()
    assert "made-up" not in text
    outcome = {"route": "/v1/completions", "model": "unknown", "outcome": "model_not_found"}
    assert sample(metrics, "rbee_requests_total", **outcome) == 100


def test_an_answer_that_has_not_begun_has_no_status() -> None:
    metrics = Metrics()
    metrics.request_ended("GET", "/v1/models", None, 0.1)
    labels = {"method": "GET", "route": "/v1/models", "status": "none"}
    assert sample(metrics, "rbee_http_requests_total", **labels) == 1


def test_kills_are_told_by_slot() -> None:
    metrics = Metrics([("a-0", "a"), ("a-1", "a")])
    metrics.worker_killed("a-1", "SIGTERM")
    metrics.worker_killed("a-1", "SIGKILL")
    assert +metrics.kills() == {"a-1": 2}


# --- how it reads


def some() -> Metrics:
    metrics = Metrics([("a-0", "a"), ("b-0", "org/b")], causes=["crash"], reasons=REASONS)
    metrics.request_ended("GET", "/health/live", 200, 0.001)
    metrics.answer_ended("/v1/completions", "a", "ok")
    return metrics


def names(parsed: Iterable[object]) -> set[str]:
    return {family.name for family in parsed}  # type: ignore[attr-defined]


def test_both_forms_parse_and_tell_the_same_families() -> None:
    plain, open_ = expose(some().readings(), "*/*"), expose(some().readings(), OPENMETRICS)
    assert plain.media_type.startswith("text/plain; version=0.0.4")
    assert open_.media_type.startswith(OPENMETRICS)
    assert open_.body.endswith(b"# EOF\n")
    assert names(read_text(plain.body.decode())) == names(read_openmetrics(open_.body.decode()))


@given(st.text(st.sampled_from('aopenmtrics/-;=,.109 "*\x7fé'), max_size=60))
def test_whatever_a_client_accepts_is_no_error_and_is_not_repeated(accept: str) -> None:
    for each in (accept, f"{OPENMETRICS};version={accept}", f"text/plain;version={accept}"):
        page = expose([], each)
        assert page.media_type in {expose([], "").media_type, expose([], OPENMETRICS).media_type}


@pytest.mark.parametrize("quality", ["q=0", "Q=0.", "version=1.0.0; q=0.000", "q=0;version=1.0.0"])
def test_who_refuses_openmetrics_gets_text(quality: str) -> None:
    page = expose([], f"{OPENMETRICS}; {quality}, */*")
    assert page.media_type == expose([], "").media_type


@pytest.mark.parametrize("quality", ["q=0.1", "q=0.001", "q=1", "version=0"])
def test_who_accepts_openmetrics_after_others_gets_it(quality: str) -> None:
    assert expose([], f"text/plain, {OPENMETRICS}; {quality}").media_type.startswith(OPENMETRICS)


def test_prometheus_own_wish_is_openmetrics() -> None:
    wish = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.2"
    )
    assert expose([], wish).media_type.startswith(OPENMETRICS)
