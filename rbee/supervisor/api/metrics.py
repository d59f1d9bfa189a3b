"""``GET /metrics``: for Prometheus."""

from itertools import chain

from starlette.requests import Request
from starlette.routing import Route

from rbee.audit import Audit
from rbee.metrics import Metrics
from rbee.metrics.exposition import expose
from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.ports import Operations
from rbee.supervisor.api.readings import read_off
from rbee.supervisor.api.routing import route
from rbee.supervisor.api.visit import visit_of


def metrics_routes(metrics: Metrics, operations: Operations, audit: Audit) -> list[Route]:
    async def show_metrics(request: Request) -> Answer:
        readings = chain(read_off(operations, audit), metrics.readings())
        page = expose(readings, request.headers.get("accept", ""))
        visit_of(request.scope).is_quiet = True  # scrapes come every few seconds
        return Answer(200, [(b"content-type", page.media_type.encode())], page.body)

    return [route("/metrics", get=show_metrics)]
