"""``/health/*``: the three probes of Kubernetes, answered from the supervisor's own state.

Rule: the body says nothing but the status. These routes will stay open when there are keys.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rbee.supervisor.api.answers import json_answer
from rbee.supervisor.api.ports import Operations
from rbee.supervisor.api.problems import RETRY_AFTER_S_DEFAULT
from rbee.supervisor.api.routing import route


def health_routes(operations: Operations) -> list[Route]:
    async def live(_request: Request) -> Response:
        return _status("ok")  # whoever gets this answer has the proof

    async def ready(_request: Request) -> Response:
        return _status(operations.readiness())

    async def startup(_request: Request) -> Response:
        return _status("ok" if operations.has_started() else "starting")

    return [
        route("/health/live", get=live, is_quiet=True),
        route("/health/ready", get=ready, is_quiet=True),
        route("/health/startup", get=startup, is_quiet=True),
    ]


def _status(status: str) -> Response:
    if status == "ok":
        return json_answer({"status": status})
    return json_answer({"status": status}, 503, {"retry-after": str(RETRY_AFTER_S_DEFAULT)})
