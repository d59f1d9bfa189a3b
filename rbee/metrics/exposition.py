"""Metrics as Prometheus reads them. The only file that knows prometheus_client."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from rbee.metrics.distribution import Distribution
from rbee.metrics.families import FAMILIES, Family, Kind
from rbee.metrics.metrics import Labels, Value

Reading = tuple[Family, Labels, Value]

OPENMETRICS: Final = "application/openmetrics-text"

_TOTAL: Final = "_total"
_REFUSES: Final = re.compile(r"q\s*=\s*0(\.0*)?")  # RFC 9110, section 12.4.2


@dataclass(frozen=True, slots=True)
class Page:
    """One scrape."""

    media_type: str
    body: bytes


def expose(readings: Iterable[Reading], accept: str) -> Page:
    """The page for a client that accepts these media types, as of HTTP's ``Accept``.

    It is OpenMetrics for those who ask for that, else Prometheus' text. The figures of the
    supervisor's own process (``process_*``) are on it, too.
    """
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Readings(readings))
    # The library's own choice puts the version that a client names into the answer as it is.
    if any(map(_is_openmetrics, accept.split(","))):
        return Page(OPENMETRICS_TYPE, generate_openmetrics(registry))  # type: ignore[no-untyped-call]
    return Page(CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))


def _is_openmetrics(accepted: str) -> bool:
    """Whether one member of an ``Accept`` names it, and does not refuse it with a quality of 0."""
    media_type, *parameters = (part.strip().lower() for part in accepted.split(";"))
    return media_type == OPENMETRICS and not any(map(_REFUSES.fullmatch, parameters))


class _Readings(Collector):
    """Hands over what was read, in the order of the table, each family once."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._by_family: dict[str, list[tuple[Labels, Value]]] = {}
        for family, labels, value in readings:
            self._by_family.setdefault(family.name, []).append((labels, value))

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            if family.name in self._by_family:
                yield _metric(family, self._by_family[family.name])


def _metric(family: Family, values: list[tuple[Labels, Value]]) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        spread = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, value in values:
            assert isinstance(value, Distribution), family.name
            spread.add_metric(labels, value.cumulative(), value.sum)
        return spread
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(family.name.removesuffix(_TOTAL), family.help, labels=family.labels)
    for labels, value in values:
        assert not isinstance(value, Distribution), family.name
        metric.add_metric(labels, value)
    return metric
