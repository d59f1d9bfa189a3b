"""``/v1/rbee/*``: what operators see and do."""

import msgspec
import trio
from starlette.requests import Request
from starlette.routing import Route

from rbee import __version__
from rbee.errors import ErrorCode, RequestError
from rbee.ids import is_worker_id
from rbee.supervisor.api.answers import Answer, json_answer
from rbee.supervisor.api.ports import Operations
from rbee.supervisor.api.routing import route


def admin_routes(operations: Operations) -> list[Route]:
    started_s = trio.current_time()

    async def show_status(_request: Request) -> Answer:
        states = [worker.state for worker in operations.workers()]
        return json_answer(
            {
                "version": __version__,
                "readiness": operations.readiness(),
                "has_started": operations.has_started(),
                "uptime_s": round(trio.current_time() - started_s, 3),
                "queued": operations.queued(),
                "models": {model.name: model.is_ready for model in operations.models()},
                "workers": {state: states.count(state) for state in sorted(set(states))},
                "breakers": operations.breakers(),
                "gpus": operations.gpus(),
                "disks": operations.disks(),
            }
        )

    async def show_workers(_request: Request) -> Answer:
        return json_answer(
            {
                "workers": operations.workers(),
                "queued": operations.queued(),
                "gpus": operations.gpus(),
                "disks": operations.disks(),
            }
        )

    async def restart_worker(request: Request) -> Answer:
        slot = _slot(request)
        operations.restart_worker(slot)
        return json_answer({"slot": slot, "asked": "restart"}, 202)

    async def stop_worker(request: Request) -> Answer:
        slot = _slot(request)
        operations.stop_worker(slot)
        return json_answer({"slot": slot, "asked": "stop"}, 202)

    async def reset_worker(request: Request) -> Answer:
        slot = _slot(request)
        operations.reset_worker(slot)
        return json_answer({"slot": slot, "asked": "reset"}, 202)

    async def show_crashes(_request: Request) -> Answer:
        return json_answer({"crashes": operations.crashes()})

    async def show_crash(request: Request) -> Answer:
        return json_answer(msgspec.Raw(operations.crash(request.path_params["crash"])))

    return [
        route("/v1/rbee/status", get=show_status),
        route("/v1/rbee/workers", get=show_workers),
        route("/v1/rbee/workers/{slot}/restart", post=restart_worker),
        route("/v1/rbee/workers/{slot}/stop", post=stop_worker),
        route("/v1/rbee/workers/{slot}/reset", post=reset_worker),
        route("/v1/rbee/crashes", get=show_crashes),
        route("/v1/rbee/crashes/{crash}", get=show_crash),
    ]


def _slot(request: Request) -> str:
    slot: str = request.path_params["slot"]
    if not is_worker_id(slot):
        message = "there is no such slot; GET /v1/rbee/workers lists them"
        raise RequestError(ErrorCode.WORKER_NOT_FOUND, message)
    return slot
