"""The steps of `specs/110-lifecycle.feature` on budgets, crash reports and breakers."""

import json
import os
import signal
from typing import Any

from tests.e2e.server import wait_until
from tests.specs.runner import Steps
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step


@step(r'a server with 1 worker and quick limits that will (\w+) when asked "(.+)"')
def given_quick_server(world: World, fault: str, prompt: str) -> None:
    limits = {"beat_s": 0.5, "step_stall_s": 2, "step_stall_s_min": 2, "step_stall_s_max": 2}
    lines = [f"{key} = {value}" for key, value in {**limits, "prompt_timeout_s": 2}.items()]
    world.configure(
        head="\n".join(
            ["[server]", f'state_dir = "{world.directory}/state"', "[worker]", *lines, ""]
        ),
        synthetic=f'fault = "{fault}"\nfault_prompt = "{prompt}"',
    )
    world.start()


@step(r"a server with 1 worker, no restarts and a cool-down of (\d+) second")
def given_cooling_server(world: World, cooldown_s: str) -> None:
    world.configure(head=f"[restart]\nfailures_max = 1\ncooldown_s = {cooldown_s}\n")
    world.start()


@step(r"a starting server whose workers will out_of_memory at once, and that is to exit then")
def given_hopeless_server(world: World) -> None:
    world.configure(
        head='[restart]\non_hopeless = "exit"\n',
        model="slots = 2",
        synthetic='fault = "out_of_memory"',
    )
    world.start(until_ready=False)


@step(r'a crash report tells the cause "(\w+)", (\d+) open request and the stack of "(\w+)"')
def then_report_tells_stack(world: World, cause: str, requests: str, function: str) -> None:
    report = newest_report(world)
    assert (report["cause"], report["requests_open"]) == (cause, int(requests))
    assert any(line.endswith(f" in {function}") for line in report["stacks"]), report["stacks"]


@step(r'a crash report tells that it "(.+)", with "(.+)" in its last lines')
def then_report_tells_lines(world: World, how: str, text: str) -> None:
    report = newest_report(world)
    assert report["how"] == how
    assert any(text in line["text"] for line in report["lines"]), report["lines"]


@step(r'no crash report holds "(.+)"')
def then_no_report_holds(world: World, text: str) -> None:
    files = list((world.directory / "state" / "crashes").glob("*.json"))
    assert files
    assert all(text not in file.read_text("utf-8") for file in files)
    assert text not in json.dumps(newest_report(world))


@step(r"the server is stopped and started again")
def when_server_started_anew(world: World) -> None:
    assert world.server.stop() == 0
    world.start()


@step(r'the status shows an? (open|half_open) breaker for "(\w+)"')
def then_breaker(world: World, state: str, cause: str) -> None:
    [breaker] = world.server.get("/v1/rbee/status").json()["breakers"]
    assert (breaker["state"], breaker["cause"]) == (state, cause)
    assert breaker["slots"] == ["synthetic-0"]
    assert breaker["remedy"]


@step(r"the status shows no breaker")
def then_no_breaker(world: World) -> None:
    assert world.server.get("/v1/rbee/status").json()["breakers"] == []


@step(r"the operator resets the worker")
def when_operator_resets(world: World) -> None:
    slot = world.server.workers()[0]["slot"]
    assert world.server.post(f"/v1/rbee/workers/{slot}/reset").status_code == 202


@step(r"the worker that comes after it is killed")
def when_next_killed(world: World) -> None:
    os.kill(world.server.wait_event("worker_spawned", 10)["pid"], signal.SIGKILL)


@step(r"the server exits by itself with code (\d+)")
def then_exits_by_itself(world: World, code: str) -> None:
    assert world.server.process.wait(15) == int(code)


def newest_report(world: World) -> dict[str, Any]:
    def reports() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = world.server.get("/v1/rbee/crashes").json()["crashes"]
        return found

    wait_until(lambda: bool(reports()), 5, "a crash report")
    report: dict[str, Any] = world.server.get(f"/v1/rbee/crashes/{reports()[0]['id']}").json()
    return report
