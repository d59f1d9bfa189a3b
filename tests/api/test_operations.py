"""Models, probes and operators' routes: the supervisor's own state, as JSON."""

import dataclasses

import pytest
from openai.types import Model

from rbee import __version__
from rbee.supervisor.views import Readiness
from tests.api.face import DISK, GPU, Face


async def test_models_are_openais_with_a_little_more() -> None:
    face = Face()
    listed = (await face.request("GET", "/v1/models")).json
    assert listed["object"] == "list"
    first, second = (Model.model_validate(each, strict=True) for each in listed["data"])
    assert (first.id, first.object, second.id) == ("bee-tiny", "model", "org/large")
    assert listed["data"][0]["context_length"] == 4096
    assert listed["data"][1]["ready"] is False


async def test_one_model_is_found_by_its_name_slashes_included() -> None:
    face = Face()
    assert (await face.request("GET", "/v1/models/org/large")).json["id"] == "org/large"
    missing = await face.request("GET", "/v1/models/hunter2")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")
    assert b"hunter2" not in missing.body


@pytest.mark.parametrize(
    ("state", "status"),
    [("ok", 200), ("starting", 503), ("unavailable", 503), ("draining", 503)],
)
async def test_ready_tells_the_readiness_and_nothing_else(state: Readiness, status: int) -> None:
    face = Face()
    face.operations.state = state
    exchange = await face.request("GET", "/health/ready")
    assert (exchange.status, exchange.json) == (status, {"status": state})
    assert ("retry-after" in exchange.headers) == (status == 503)
    assert (await face.request("GET", "/health/live")).json == {"status": "ok"}


async def test_startup_tells_whether_every_slot_was_ready_once() -> None:
    face = Face()
    face.operations.started = False
    exchange = await face.request("GET", "/health/startup")
    assert (exchange.status, exchange.json) == (503, {"status": "starting"})
    face.operations.started = True
    assert (await face.request("GET", "/health/startup")).status == 200


async def test_workers_are_shown_as_they_are() -> None:
    answer = (await Face().request("GET", "/v1/rbee/workers")).json
    assert answer["queued"] == 3
    [worker] = answer["workers"]
    assert (worker["slot"], worker["pid"], worker["state"]) == ("bee-tiny-0", 4711, "ready")
    assert worker["detail"] == {"attention": "none"}


async def test_status_sums_up() -> None:
    answer = (await Face().request("GET", "/v1/rbee/status")).json
    assert answer.pop("uptime_s") >= 0
    assert answer == {
        "version": __version__,
        "readiness": "ok",
        "has_started": True,
        "queued": 3,
        "models": {"bee-tiny": True, "org/large": False},
        "workers": {"ready": 1},
        "breakers": [
            {
                "model": "bee-tiny", "cause": "crash", "state": "open", "slots": ["bee-tiny-1"],
                "reason": "4 failures in a row", "remedy": "look", "trial_in_s": None,
            }
        ],
        "gpus": [dataclasses.asdict(GPU)],
        "disks": [dataclasses.asdict(DISK)],
    }  # fmt: skip


async def test_crash_reports_are_listed_and_shown_by_their_id() -> None:
    face = Face()
    [crash] = (await face.request("GET", "/v1/rbee/crashes")).json["crashes"]
    assert (crash["slot"], crash["cause"]) == ("bee-tiny-0", "crash")
    shown = await face.request("GET", f"/v1/rbee/crashes/{crash['id']}")
    assert (shown.status, shown.json) == (200, {"id": crash["id"], "lines": []})
    missing = await face.request("GET", "/v1/rbee/crashes/..")
    assert (missing.status, missing.error["code"]) == (404, "not_found")


@pytest.mark.parametrize("what", ["restart", "stop", "reset"])
async def test_a_worker_is_restarted_stopped_or_reset_by_its_slot(what: str) -> None:
    face = Face()
    exchange = await face.request("POST", f"/v1/rbee/workers/bee-tiny-0/{what}")
    assert (exchange.status, exchange.json) == (202, {"slot": "bee-tiny-0", "asked": what})
    assert face.operations.asked == [(what, "bee-tiny-0")]
    for slot in ("bee-tiny-1", "..", "UPPER", "a\nb", "x" * 65):
        exchange = await face.request("POST", f"/v1/rbee/workers/{slot}/{what}")
        assert exchange.status == 404
        assert exchange.error["code"] in ("worker_not_found", "not_found")
    assert (await face.request("GET", f"/v1/rbee/workers/bee-tiny-0/{what}")).status == 405
    assert len(face.operations.asked) == 1
