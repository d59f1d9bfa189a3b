"""``/v1/models``: which models can be asked for, in OpenAI's form and a little more."""

from starlette.requests import Request
from starlette.routing import Route

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.answers import Answer, json_answer
from rbee.supervisor.api.ports import ModelView, Operations
from rbee.supervisor.api.routing import route


def list_models(operations: Operations) -> Answer:
    return json_answer({"object": "list", "data": [_entry(m) for m in operations.models()]})


def model_routes(operations: Operations) -> list[Route]:
    async def show_model(request: Request) -> Answer:
        for model in operations.models():
            if model.name == request.path_params["name"]:
                return json_answer(_entry(model))
        message = "there is no such model here; GET /v1/models lists those that are"
        raise RequestError(ErrorCode.MODEL_NOT_FOUND, message, param="model")

    return [route("/v1/models/{name:path}", get=show_model)]


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
