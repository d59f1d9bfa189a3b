"""``/v1/requests/{id}``: ends a request that runs."""

from starlette.requests import Request
from starlette.routing import Route

from rbee.errors import ErrorCode, RequestError
from rbee.ids import is_correlation_id
from rbee.supervisor.api.answers import Answer, json_answer
from rbee.supervisor.api.open_requests import OpenRequests
from rbee.supervisor.api.routing import route
from rbee.supervisor.api.visit import visit_of


def request_routes(open_requests: OpenRequests) -> list[Route]:
    async def cancel(request: Request) -> Answer:
        request_id: str = request.path_params["id"]
        if not is_correlation_id(request_id):
            message = "an id has 1 to 64 letters, digits and ._-"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, param="id")
        principal = visit_of(request.scope).principal
        assert principal is not None, "the route lets in nobody who is not known"
        cancelled = open_requests.cancel(request_id, principal)
        return json_answer({"id": request_id, "object": "request", "cancelled": cancelled})

    return [route("/v1/requests/{id}", delete=cancel)]
