"""What the scenarios of `specs/350-metrics.feature` read off `/metrics`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

import httpx2
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from rbee.metrics.exposition import OPENMETRICS
from rbee.metrics.families import FAMILIES
from tests.e2e.server import NO_TLS
from tests.specs.access_room import KEYED, bearer, keyed
from tests.specs.world import World

METRICS: Final = "/metrics"
SELECTOR: Final = r"(rbee_\w+(?:\{[^}]*\})?)"  # as Prometheus has it, with "=" alone

# By the content type of an answer.
READERS: Final[dict[str, Callable[[str], Any]]] = {
    "text/plain": read_text,
    OPENMETRICS: read_openmetrics,
}


@dataclass(frozen=True)
class Sample:
    """One line of a scrape."""

    name: str
    labels: frozenset[tuple[str, str]]
    value: float

    @property
    def series(self) -> tuple[str, frozenset[tuple[str, str]]]:
        return self.name, self.labels


class Scrape:
    """What one answer of `/metrics` tells. Each line is held to what its form wants."""

    def __init__(self, answer: httpx2.Response) -> None:
        assert answer.status_code == 200, answer.text
        self.text = answer.text
        self.media_type = answer.headers["content-type"].partition(";")[0]
        families = list(READERS[self.media_type](answer.text))
        self.names = {family.name for family in families}
        self.samples = [
            Sample(each.name, frozenset(each.labels.items()), each.value)
            for family in families
            for each in family.samples
        ]
        assert len({each.series for each in self.samples}) == len(self.samples)
        documented = {family.name.removesuffix("_total") for family in FAMILIES}
        assert {name for name in self.names if name.startswith("rbee_")} <= documented

    def sum(self, selector: str) -> float | None:
        """Of all samples that fit; None: there is none."""
        name, _, rest = selector.partition("{")
        wanted = set(re.findall(r'(\w+)="([^"]*)"', rest))
        fitting = [
            each.value for each in self.samples if each.name == name and wanted <= each.labels
        ]
        return sum(fitting) if fitting else None


@dataclass
class Looked:
    """What a scenario has seen so far."""

    noted: Scrape | None = None
    usages: list[dict[str, int]] = field(default_factory=list)  # of the answers since then
    choices: int = 0  # of these answers
    made_up: list[str] = field(default_factory=list)
    scrapes: list[Scrape] = field(default_factory=list)


_LOOKED: WeakKeyDictionary[World, Looked] = WeakKeyDictionary()


def looked(world: World) -> Looked:
    return _LOOKED.setdefault(world, Looked())


def page(world: World, accept: str = "") -> httpx2.Response:
    headers = bearer(keyed(world).admin) if world in KEYED else {}
    if accept:
        headers["accept"] = accept
    return httpx2.get(world.server.url + METRICS, headers=headers, timeout=20, verify=NO_TLS)


def scrape(world: World, accept: str = "") -> Scrape:
    return Scrape(page(world, accept))


def grown(world: World, selector: str) -> float:
    """By how much, since it was noted. What had no sample begins at 0."""
    noted = looked(world).noted
    assert noted is not None
    return (scrape(world).sum(selector) or 0) - (noted.sum(selector) or 0)
