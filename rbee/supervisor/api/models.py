"""``/v1/models``: which models can be asked for, in OpenAI's form and a little more."""

from starlette.requests import Request
from starlette.routing import Route

from rbee.errors import model_not_found
from rbee.supervisor.api.answers import Answer, json_answer
from rbee.supervisor.api.ports import ModelView, Operations
from rbee.supervisor.api.routing import route
from rbee.supervisor.api.visit import Visit, visit_of


def list_models(operations: Operations, visit: Visit) -> Answer:
    models = [_entry(model) for model in operations.models() if _is_shown(model, visit)]
    return json_answer({"object": "list", "data": models})


def model_routes(operations: Operations) -> list[Route]:
    async def show_model(request: Request) -> Answer:
        for model in operations.models():
            is_shown = _is_shown(model, visit_of(request.scope))
            if is_shown and model.name == request.path_params["name"]:
                return json_answer(_entry(model))
        raise model_not_found()

    return [route("/v1/models/{name:path}", get=show_model)]


def _is_shown(model: ModelView, visit: Visit) -> bool:
    return visit.principal is not None and visit.principal.may_use(model.name)


def _entry(model: ModelView) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_s,
        "owned_by": "rbee",
        "engine": model.engine,
        "context_length": model.context_length,
        "ready": model.is_ready,
    }
