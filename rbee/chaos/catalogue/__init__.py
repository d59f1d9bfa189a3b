"""All kinds of faults: those that can be put to a server here, and those that cannot."""

from typing import Final

from rbee.chaos.catalogue.absent import ABSENT
from rbee.chaos.catalogue.clients import OF_CLIENTS
from rbee.chaos.catalogue.engines import OF_ENGINES
from rbee.chaos.catalogue.servers import OF_SERVERS
from rbee.chaos.catalogue.stores import OF_STORES
from rbee.chaos.catalogue.workers import OF_WORKERS
from rbee.chaos.scenario import Scenario

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (*OF_WORKERS, *OF_ENGINES, *OF_SERVERS, *OF_STORES, *OF_CLIENTS)
}

__all__ = ["ABSENT", "SCENARIOS"]
