"""The steps of `specs/110-lifecycle.feature`."""

import os
import signal
import stat
import time

from tests.e2e.server import Server, is_running, wait_until
from tests.specs.runner import Steps
from tests.specs.world import World, numbers

STEPS = Steps()
step = STEPS.step


@step(r"a server with (\d+) workers?")
def given_server(world: World, slots: str) -> None:
    world.configure(model=f"slots = {slots}")
    world.start_all()


@step(r"a server with 1 worker and beats every ([\d.]+) seconds")
def given_beating_server(world: World, beat_s: str) -> None:
    world.configure(head=f"[worker]\nbeat_s = {beat_s}\n")
    world.start()


@step(r'a server with 1 worker and beats every ([\d.]+) seconds that will (\w+) when asked "(.+)"')
def given_faulty_beating_server(world: World, beat_s: str, fault: str, prompt: str) -> None:
    world.configure(
        head=f"[worker]\nbeat_s = {beat_s}\n",
        synthetic=f'fault = "{fault}"\nfault_prompt = "{prompt}"',
    )
    world.start()


@step(r"a server with (\d+) workers that will (\w+)")
def given_stubborn_server(world: World, slots: str, fault: str) -> None:
    world.configure(model=f"slots = {slots}", synthetic=f'fault = "{fault}"')
    world.start_all()


@step(r"a starting server whose worker will (\w+) and may stall for (\d+) second")
def given_stalling_server(world: World, fault: str, stall_s: str) -> None:
    world.configure(
        head=f"[worker]\nload_stall_s = {stall_s}\n", synthetic=f'fault = "{fault}"\nload_s = 0.2'
    )
    world.start(until_ready=False)


@step(r"a starting server whose worker will out_of_memory at once")
def given_greedy_server(world: World) -> None:
    world.configure(synthetic='fault = "out_of_memory"')
    world.start(until_ready=False)


@step(r"the server is started again on the same run directory")
def when_started_again(world: World) -> None:
    world.start()


@step(r"a second server is started on the same run directory")
def when_second_started(world: World) -> None:
    world.second = Server(world.directory, world._config)
    world.second.process.wait(30)


@step(r"it exits with code (\d+) and names the pid of the first")
def then_second_exits(world: World, code: str) -> None:
    assert world.second is not None
    assert world.second.process.returncode == int(code)
    world.second._reader.join(5)
    assert str(world.server.pid) in world.second.log


@step(r"the run directory has mode (\d+)")
def then_run_dir_mode(world: World, mode: str) -> None:
    assert stat.S_IMODE(world.server.run_dir.stat().st_mode) == int(mode, 8)


@step(r'the log says "serving" with the address, the model and the engine')
def then_serving(world: World) -> None:
    [serving] = [event for event in world.server.events if event["event"] == "serving"]
    assert serving["url"] == world.server.url
    assert (serving["model"], serving["engine"]) == ("synthetic", "synthetic")


@step(r'the log says "(\w+)" within ([\d.]+) seconds?')
def then_logged(world: World, event: str, within_s: str) -> None:
    world.server.wait_event(event, float(within_s))


@step(r'the log says "(\w+)" within ([\d.]+) seconds?, because of "(.+)"')
def then_logged_because(world: World, event: str, within_s: str, reason: str) -> None:
    found = world.server.wait_event(event, float(within_s))
    assert reason in found["reason"], found


@step(r'readiness is (\d+) "(\w+)"')
def then_readiness(world: World, status: str, word: str) -> None:
    answer = world.server.get("/health/ready")
    assert (answer.status_code, answer.json()) == (int(status), {"status": word})


@step(r"the worker is ready, with a pid, a model and beats")
def then_worker_is_complete(world: World) -> None:
    wait_until(lambda: world.server.workers()[0]["beats"] >= 1, 10, "a beat")
    [worker] = world.server.workers()
    assert worker["state"] == "ready"
    assert worker["model"] == "synthetic"
    assert is_running(worker["pid"])


@step(r"the worker is (ready|failed|stopped)")
def then_worker_state(world: World, state: str) -> None:
    wait_until(lambda: world.server.workers()[0]["state"] == state, 10, f"the state {state}")


@step(r"the worker is killed")
def when_worker_killed(world: World) -> None:
    world.pids = world.server.worker_pids()
    world.killed_s = time.monotonic()
    os.kill(world.pids[0], signal.SIGKILL)


@step(r"the worker is stopped with SIGSTOP")
def when_worker_frozen(world: World) -> None:
    os.kill(world.pids[0], signal.SIGSTOP)


@step(r"the crash is logged within ([\d.]+) seconds")
def then_crash_logged(world: World, within_s: str) -> None:
    event = world.server.wait_event("worker_failed", float(within_s))
    assert "signal 9" in event["how"]


@step(r"a new worker process is started within ([\d.]+) seconds of the kill")
def then_new_worker(world: World, within_s: str) -> None:
    event = world.server.wait_event("worker_spawned", 10)
    assert event["pid"] not in world.pids
    assert time.monotonic() - world.killed_s < float(within_s)


@step(r"the server becomes ready again within (\d+) seconds")
def then_ready_again(world: World, within_s: str) -> None:
    def is_ready() -> bool:
        return world.server.get("/health/ready").status_code == 200

    wait_until(is_ready, float(within_s), "readiness")


@step(r"the worker counts (\d+) restart")
def then_restarts(world: World, restarts: str) -> None:
    assert world.server.workers()[0]["restarts"] == int(restarts)


@step(r'a request with the prompt "(.+)" is (?:sent|streaming)')
def when_prompt_streams(world: World, prompt: str) -> None:
    world.stream(prompt, 1000)


@step(r"the worker was started (\d+) times?")
def then_started_times(world: World, times: str) -> None:
    spawned = [event for event in world.server.events if event["event"] == "worker_spawned"]
    assert len(spawned) == int(times)


@step(r"the worker is killed, and so are the next 3 as they start")
def when_killed_at_each_start(world: World) -> None:
    os.kill(world.pids[0], signal.SIGKILL)
    for _ in range(3):
        os.kill(world.server.wait_event("worker_spawned", 10)["pid"], signal.SIGKILL)


@step(r"the slot waited for about 1, 2 and 4 seconds before the starts")
def then_waited_with_backoff(world: World) -> None:
    failed = [event for event in world.server.events if event["event"] == "worker_failed"]
    delays_s = [event["restart_in_s"] for event in failed]
    assert delays_s.pop() is None
    for delay_s, expected_s in zip(delays_s, (1, 2, 4), strict=True):
        assert 0.9 * expected_s <= delay_s <= 1.1 * expected_s


@step(r"the operator (restarts|stops) the worker")
def when_operator_acts(world: World, act: str) -> None:
    world.pids = world.server.worker_pids()
    slot = world.server.workers()[0]["slot"]
    path = f"/v1/rbee/workers/{slot}/{act.removesuffix('s')}"
    assert world.server.post(path).status_code in (200, 202)


@step(r"the worker has another pid than before")
def then_other_pid(world: World) -> None:
    assert not set(world.server.worker_pids()) & set(world.pids)


@step(r"a request for (\d+) tokens is streaming")
def when_streaming(world: World, tokens: str) -> None:
    world.stream("hello", int(tokens)).wait_begun()


@step(r"the stream ends whole with (\d+) tokens")
def then_stream_whole(world: World, tokens: str) -> None:
    stream = world.streams[-1].wait_over()
    assert stream.text == numbers(int(tokens))
    assert stream.finish_reasons == ["length"]
    assert stream.events[-1] == "[DONE]"


@step(r'the stream ended with an error and "\[DONE\]"')
def then_stream_failed(world: World) -> None:
    stream = world.streams[-1].wait_over(10)
    assert len(stream.errors) == 1
    assert stream.finish_reasons == []
    assert [event for event in stream.events if isinstance(event, str)] == ["[DONE]"]
    assert stream.events[-1] == "[DONE]"


@step(r"the server gets SIGTERM")
def when_sigterm(world: World) -> None:
    world.pids = world.server.worker_pids() or world.pids
    world.killed_s = time.monotonic()
    world.server.signal(signal.SIGTERM)
    is_second = any(event["event"] == "shutdown_begun" for event in world.server.events)
    world.server.wait_event("shutdown_hurried" if is_second else "shutdown_begun", 5)


@step(r"the server is killed")
def when_sigkill(world: World) -> None:
    world.pids = world.server.worker_pids()
    world.killed_s = time.monotonic()
    world.server.process.kill()
    world.server.process.wait(5)


@step(r"the server exits with code (\d+) within (\d+) seconds")
def then_exits(world: World, code: str, within_s: str) -> None:
    assert world.server.process.wait(float(within_s) + 5) == int(code)
    took_s = time.monotonic() - world.killed_s
    print(f"exited {took_s:.2f} s after its signal")
    assert took_s < float(within_s)


@step(r"no worker process is left(?: within (\d+) seconds)?")
def then_none_left(world: World, within_s: str | None) -> None:
    assert world.pids
    wait_until(lambda: not any(map(is_running, world.pids)), float(within_s or 0.1), "their end")


@step(r"the run directory is gone")
def then_run_dir_gone(world: World) -> None:
    assert not world.server.run_dir.exists()


@step(r'a new request is refused with (\d+) "(\w+)"')
def then_refused(world: World, status: str, code: str) -> None:
    answer = world.server.chat("hello")
    assert (answer.status_code, answer.json()["error"]["code"]) == (int(status), code)
    assert int(answer.headers["retry-after"]) >= 1
