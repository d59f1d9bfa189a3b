"""Metrics as Prometheus reads them. The only file that knows prometheus_client."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rbee.metrics.distribution import Distribution
from rbee.metrics.families import FAMILIES, Family, Kind
from rbee.metrics.metrics import Labels, Value

Reading = tuple[Family, Labels, Value]

_TOTAL: Final = "_total"


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
    encode, media_type = choose_encoder(accept)
    return Page(media_type, encode(registry))


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
    match family.kind:
        case Kind.COUNTER:
            name = family.name.removesuffix(_TOTAL)
            metric: Metric = CounterMetricFamily(name, family.help, labels=family.labels)
        case Kind.GAUGE:
            metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        case Kind.HISTOGRAM:
            metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in values:
        if isinstance(value, Distribution):
            metric.add_metric(labels, buckets=value.cumulative(), sum_value=value.sum)
        else:
            metric.add_metric(labels, value)
    return metric
