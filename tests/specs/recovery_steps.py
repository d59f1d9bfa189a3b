"""The steps of `specs/210-failure-recovery.feature`."""

import os
import signal
import time
from typing import Any

from tests.e2e.server import wait_until
from tests.e2e.stream import Stream
from tests.specs.runner import Steps
from tests.specs.world import World, numbers

STEPS = Steps()
step = STEPS.step


@step(r"a server with 1 worker that takes 3 seconds to load")
def given_slow_loader(world: World) -> None:
    world.configure(synthetic="load_s = 3")
    world.start()


@step(r"a server with 1 worker that is not restarted more than once")
def given_impatient_server(world: World) -> None:
    world.configure(head="[restart]\nfailures_max = 1\n")
    world.start()


@step(
    r"a server with 1 worker that is not restarted more than once,"
    r' and will (\w+) when asked "(.+)"'
)
def given_impatient_poisonable_server(world: World, fault: str, prompt: str) -> None:
    world.configure(
        head="[restart]\nfailures_max = 1\n",
        synthetic=f'fault = "{fault}"\nfault_prompt = "{prompt}"',
    )
    world.start()


@step(r'a server with (\d+) worker\(s\) that will (\w+) after (\d+) steps when asked "(.+)"')
def given_poisonable_server(world: World, slots: str, fault: str, steps: str, prompt: str) -> None:
    world.configure(
        model=f"slots = {slots}",
        synthetic=f'fault = "{fault}"\nfault_prompt = "{prompt}"\nfault_after_steps = {steps}',
    )
    world.start_all()


@step(r"the worker that has it is (killed|frozen)")
def when_its_worker_dies(world: World, how: str) -> None:
    number = signal.SIGKILL if how == "killed" else signal.SIGSTOP
    os.kill(_busy_pid(world), number)


def _busy_pid(world: World) -> int:
    """A worker that has requests; several choices of one request may be on more than one."""
    pids = [worker["pid"] for worker in world.server.workers() if worker["requests"]]
    assert pids, "no worker has a request"
    assert isinstance(pids[0], int)
    return pids[0]


@step(r"the worker that has it is killed, and so is the next as it starts")
def when_two_die(world: World) -> None:
    os.kill(_busy_pid(world), signal.SIGKILL)
    world.server.wait_event("worker_failed", 5)
    os.kill(world.server.wait_event("worker_spawned", 10)["pid"], signal.SIGKILL)


@step(r"one worker is killed, and the other one when the first is back")
def when_both_die(world: World) -> None:
    for stream in world.streams:
        stream.wait_begun()
    for _ in range(2):
        workers = world.server.workers()
        os.kill(max(workers, key=lambda worker: worker["requests"])["pid"], signal.SIGKILL)
        assert world.server.wait_event("requests_interrupted", 5)["requests"] >= 1
        pid = world.server.wait_event("worker_spawned", 5)["pid"]
        world.server.wait_event("worker_ready", 10, pid=pid)


@step(r"the log says that (\d+) of (\d+) interrupted requests went on")
def then_log_counts(world: World, went_on: str, interrupted: str) -> None:
    event = world.server.wait_event("requests_interrupted", 5)
    assert (event["go_on"], event["requests"]) == (int(went_on), int(interrupted))


@step(r"the whole answer has (\d+) tokens and counts them")
def then_whole_answer(world: World, tokens: str) -> None:
    answer = world.streams[-1].wait_over().json()
    [choice] = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (numbers(int(tokens)), "length")
    usage = answer["usage"]
    assert usage["completion_tokens"] == int(tokens)
    assert usage["prompt_tokens"] == len("hello")


@step(r"a request for (\d+) choices of (\d+) tokens is streaming")
def when_choices_stream(world: World, count: str, tokens: str) -> None:
    body = {"model": "synthetic", "prompt": "hello", "max_tokens": int(tokens), "n": int(count)}
    stream = Stream(world.server.url, "/v1/completions", body).wait_begun()
    world.streams.append(stream)
    wait_until(lambda: _choices(stream) == set(range(int(count))), 5, "the first of each choice")


def _choices(stream: Stream) -> set[int]:
    return {choice["index"] for choice in stream._choices()}


@step(r"each of the (\d+) choices is whole with (\d+) tokens")
def then_choices_whole(world: World, count: str, tokens: str) -> None:
    stream = world.streams[-1].wait_over()
    texts: dict[int, str] = {}
    for choice in stream._choices():
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == dict.fromkeys(range(int(count)), numbers(int(tokens)))
    assert stream.finish_reasons == ["length"] * int(count)


@step(r"a request for (\d+) tokens with a timeout of (\d+) seconds is streaming")
def when_timed_stream(world: World, tokens: str, timeout_s: str) -> None:
    body: dict[str, Any] = {"model": "synthetic", "prompt": "hello", "max_tokens": int(tokens)}
    headers = {"x-request-timeout": timeout_s}
    world.killed_s = time.monotonic()
    stream = Stream(world.server.url, "/v1/completions", body, headers=headers)
    world.streams.append(stream.wait_begun())


@step(r'the (?:last )?stream ends with the error "(\w+)"')
def then_error_at_end(world: World, code: str) -> None:
    stream = world.streams[-1].wait_over()
    if stream.status == 200:
        assert [error["code"] for error in stream.errors] == [code]
        assert stream.events[-1] == "[DONE]"
    else:
        assert stream.json()["error"]["code"] == code


@step(r'the stream ends with the error "(\w+)" within (\d+) seconds of its start')
def then_error_in_time(world: World, code: str, within_s: str) -> None:
    then_error_at_end(world, code)
    assert time.monotonic() - world.killed_s < float(within_s)


@step(r"(\d+) workers have ended")
def then_ended(world: World, count: str) -> None:
    def ended() -> int:
        return sum(event["event"] == "worker_failed" for event in world.server.events)

    wait_until(lambda: ended() >= int(count), 5, "the log of their ends")
    assert ended() == int(count)


@step(r"the same request is sent again")
def when_sent_again(world: World) -> None:
    body = {"model": "synthetic", "prompt": "please die", "max_tokens": 1000}
    world.send("/v1/completions", body)


@step(r'a request with the prompt "(.+)" is streaming beside them')
def when_poison_joins(world: World, prompt: str) -> None:
    for stream in world.streams:
        stream.wait_begun()
    world.stream(prompt, 1000)


@step(r"each of the other (\d+) streams is the numbers from 0 to (\d+)")
def then_others_whole(world: World, count: str, last: str) -> None:
    others = world.streams[:-1]
    assert [stream.wait_over().errors for stream in others] == [[]] * int(count)
    assert [stream.text for stream in others] == [numbers(int(last) + 1)] * int(count)
