"""What deploy/ has for Prometheus and Grafana speaks of metrics, labels and states that exist."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as read_text

from rbee.errors import ErrorCode
from rbee.metrics.exposition import expose
from rbee.metrics.families import FAMILIES, Kind
from rbee.metrics.metrics import SIGNALS
from rbee.supervisor.access.failures import REASONS
from rbee.supervisor.api.problems import PROBLEMS
from rbee.supervisor.api.readings import AUDIT_STATES
from rbee.supervisor.breaker import BreakerState
from rbee.supervisor.restart import Cause
from rbee.supervisor.views import DISK_STATES, GPU_STATES, WORKER_STATES, Readiness
from tests.metrics.promql import Grouping, Matcher, read_query

ROOT = Path(__file__).parents[2]
RULES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/rbee.rules.yml").read_text())
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
RULES_TEST = ROOT / "tests/metrics/rules_test.yml"
DASHBOARD_TEXT = (ROOT / "deploy/grafana/rbee.json").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads(DASHBOARD_TEXT)

ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
RECORDS = [rule for rule in ALL_RULES if "record" in rule]
ALERTS = [rule for rule in ALL_RULES if "alert" in rule]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
TARGETS = [target for panel in PANELS for target in panel["targets"]]

OF_SCRAPES = {"job", "instance"}

# No panel has them.
NOT_ON_THE_DASHBOARD: frozenset[str] = frozenset()

# Which values a label can have; of those that are no states the values are the operator's own.
VALUES: dict[tuple[str, str], set[str]] = {
    ("rbee_readiness", "state"): set(get_args(Readiness)),
    ("rbee_workers", "state"): set(WORKER_STATES),
    ("rbee_worker_breaker", "state"): set(BreakerState),
    ("rbee_worker_failures_total", "cause"): set(Cause),
    ("rbee_worker_kills_total", "signal"): set(SIGNALS),
    ("rbee_gpu_state", "state"): set(GPU_STATES),
    ("rbee_disk_state", "state"): set(DISK_STATES),
    ("rbee_audit_state", "state"): set(AUDIT_STATES),
    ("rbee_auth_failures_total", "reason"): set(REASONS),
    ("rbee_requests_total", "outcome"): {*ErrorCode, "ok", "client_gone", "shut_down"},
}

# An answer failed by our fault: what has a status of 5xx, and what the end of the server cut off.
# Who asks while it drains was told to come again.
FAILED = {code.value for code, problem in PROBLEMS.items() if problem.status >= 500}
FAILED = FAILED - {"draining"} | {"shut_down"}


def series() -> dict[str, set[str]]:
    """Every name that a scrape may bring, or a rule makes, with its labels."""
    told: dict[str, set[str]] = {"up": set(OF_SCRAPES)}
    for family in FAMILIES:
        labels = {*family.labels, *OF_SCRAPES}
        if family.kind is Kind.HISTOGRAM:
            told[f"{family.name}_bucket"] = labels | {"le"}
            told[f"{family.name}_sum"] = told[f"{family.name}_count"] = labels
        else:
            told[family.name] = labels
    for own in read_text(expose([], "").body.decode()):
        told |= {sample.name: set(OF_SCRAPES) for sample in own.samples}
    for rule in RECORDS:
        first = next(each for each in read_query(rule["expr"]).groupings if each.word == "by")
        told[rule["record"]] = set(first.labels) - {"le"}
    return told


SERIES = series()


def queries() -> Iterator[tuple[str, str]]:
    """Each that is asked, and by whom."""
    for rule in ALL_RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for name, variable in VARIABLES.items():
        if variable["type"] == "query":
            selector, _, label = (
                variable["definition"].removeprefix("label_values(").rpartition(",")
            )
            yield name, f"count by ({label.strip(' )')}) ({selector})"


QUERIES = list(queries())
EACH_QUERY = pytest.mark.parametrize(
    "text",
    [text for _, text in QUERIES],
    ids=[f"{who}-{at}" for at, (who, _) in enumerate(QUERIES)],
)
EACH_ALERT = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))


# --- queries


@EACH_QUERY
def test_a_query_asks_for_what_is_there(text: str) -> None:
    query = read_query(text)
    assert query.names
    assert set(query.names) <= set(SERIES)
    for matcher in query.matchers:
        assert matcher.label in SERIES[matcher.name], matcher
    for grouping in query.groupings:
        for name in grouping.names:
            assert set(grouping.labels) <= SERIES[name], (grouping, name)


@EACH_QUERY
def test_a_value_that_is_asked_for_can_be_had(text: str) -> None:
    for matcher in read_query(text).matchers:
        for value in matcher.values:
            if matcher.label == "job":
                assert value in {each["job_name"] for each in CONFIG["scrape_configs"]}
            else:
                assert value in VALUES[matcher.name, matcher.label], matcher


def test_queries_are_taken_apart_as_prometheus_would() -> None:
    query = read_query('sum by (a, le) (rate(x_total{b="1",c!~"2|3"}[5m])) / 2 > y and on (d) z')
    assert query.names == ("x_total", "y", "z")
    assert query.matchers == (
        Matcher("x_total", "b", "=", "1"),
        Matcher("x_total", "c", "!~", "2|3"),
    )
    assert query.matchers[1].values == ["2", "3"]
    assert query.groupings == (
        Grouping("by", ("a", "le"), ("x_total",)),
        Grouping("on", ("d",), ("x_total", "y", "z")),
    )


def test_what_counts_as_failed_is_said_alike_everywhere() -> None:
    told = [
        set(matcher.values)
        for _, text in QUERIES
        for matcher in read_query(text).matchers
        if matcher.label == "outcome" and "~" in matcher.sign
    ]
    assert len(told) == 4
    for values in told:
        assert values - {"ok"} == FAILED
    assert sum("ok" in values for values in told) == 2


# --- rules


def test_rules_have_names_of_their_own() -> None:
    named = Counter(rule.get("alert") or rule["record"] for rule in ALL_RULES)
    assert max(named.values()) == 1
    assert all(re.fullmatch(r"Rbee([A-Z][a-z]+)+", alert["alert"]) for alert in ALERTS)
    assert all(rule["record"].startswith("rbee:") for rule in RECORDS)


@pytest.mark.parametrize(
    "name",
    ["time_to_first_token_seconds", "inter_token_time_seconds", "http_request_duration_seconds"],
)
def test_percentiles_are_computed_ahead(name: str) -> None:
    for part, percent in ((0.5, 50), (0.95, 95), (0.99, 99)):
        (rule,) = [each for each in RECORDS if each["record"] == f"rbee:{name}:p{percent}"]
        assert rule["expr"].startswith(f"histogram_quantile({part}, ")
        assert read_query(rule["expr"]).names == (f"rbee_{name}_bucket",)


@EACH_ALERT
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert re.fullmatch(r"\d+[mh]", alert["for"])
    assert set(alert["annotations"]) == {"summary", "description"}
    summary, description = alert["annotations"]["summary"], alert["annotations"]["description"]
    assert summary.startswith("rbee {{ $labels.instance }}")
    assert not summary.endswith(".")
    assert re.search(r"docs/|`rbee ", description)
    assert description.endswith(".")


@EACH_ALERT
def test_an_alert_tells_labels_that_its_series_have(alert: dict[str, Any]) -> None:
    query = read_query(alert["expr"])
    by = [set(each.labels) for each in query.groupings if each.word == "by"]
    had = set.union(*(by or [SERIES[name] for name in query.names]))
    for text in alert["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= had


@EACH_ALERT
def test_an_alert_names_documents_commands_and_keys_that_exist(alert: dict[str, Any]) -> None:
    text = " ".join(alert["annotations"]["description"].split())
    for document, chapter in re.findall(r'(docs/[\w-]+\.md)(?:, "([^"]+)")?', text):
        assert (ROOT / document).is_file()
        if chapter:
            assert re.search(
                rf"^#+ {re.escape(chapter)}$", (ROOT / document).read_text("utf-8"), re.MULTILINE
            )
    commands = (ROOT / "docs/cli.md").read_text("utf-8")
    for command in re.findall(r"`(rbee [a-z]+(?: [a-z]+)?)", text):
        assert re.search(rf"^## .*`{command}\b", commands, re.MULTILINE), command
    example = tomllib.loads((ROOT / "rbee.toml.example").read_text("utf-8"))
    for section, key in re.findall(r"(?<!/)\b(server|worker|restart|gpu)\.(\w+)", text):
        assert key in example[section]


def test_each_alert_is_tried_on_series() -> None:
    tried = re.findall(r'alertname="(\w+)"[^}]*\}\', value: 1', RULES_TEST.read_text("utf-8"))
    assert set(tried) == {alert["alert"] for alert in ALERTS}


def test_the_configuration_finds_the_rules_that_lie_beside_it() -> None:
    assert CONFIG["rule_files"] == ["rbee.rules.yml"]


# --- the dashboard


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for target in TARGETS for name in read_query(target["expr"]).names}
    whole = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {family.name for family in FAMILIES} - whole == NOT_ON_THE_DASHBOARD


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panel_has_a_title_a_unit_and_the_chosen_source(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for each in (panel, *panel["targets"]):
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_what_is_told_of_a_server_or_a_model_is_of_those_that_were_chosen() -> None:
    for target in TARGETS:
        query = read_query(target["expr"])
        for name in query.names:
            matched = {(m.label, m.value) for m in query.matchers if m.name == name}
            assert ("instance", "$instance") in matched, target["expr"]
            assert ("model" in SERIES[name]) == (("model", "$model") in matched), target["expr"]


def test_a_legend_tells_labels_that_its_series_have() -> None:
    for target in TARGETS:
        query = read_query(target["expr"])
        by = [set(each.labels) for each in query.groupings if each.word == "by"]
        had = set.union(*(by or [SERIES[name] for name in query.names]))
        told = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert told <= had, target


def test_variables_are_those_that_queries_use() -> None:
    assert list(VARIABLES) == ["datasource", "instance", "model"]
    assert VARIABLES["datasource"]["query"] == "prometheus"
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD_TEXT))
    assert used - {"__rate_interval", "__all"} == set(VARIABLES)


def test_no_two_panels_have_one_place_or_one_number() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_beside or is_below, (one, other)
        assert one["x"] + one["w"] <= 24


def test_the_dashboard_is_written_so_that_changes_can_be_read() -> None:
    assert json.dumps(DASHBOARD, indent=2, ensure_ascii=False) + "\n" == DASHBOARD_TEXT
    assert DASHBOARD["schemaVersion"] >= 38  # Grafana 10
