"""The steps of `specs/340-deadlines.feature` on the queue, and on clients that do not read."""

import time
from typing import Any

from tests.e2e.server import wait_until
from tests.e2e.stream import Stream
from tests.specs.deadline_steps import (
    CHAT,
    COMPLETIONS,
    NO_DRAIN,
    TIMEOUT,
    queued,
)
from tests.specs.runner import Steps
from tests.specs.world import World, chat_body

STEPS = Steps()
step = STEPS.step

TOKENS_PER_S = 200  # of a stream of the synthetic engine
UNREAD_BODY = {"model": "synthetic", "prompt": "hello", "n": 16, "max_tokens": 4000}

# The queue.


def small_body(tokens: int) -> dict[str, Any]:
    return {"model": "synthetic", "prompt": "hi", "max_tokens": tokens}


def send_small(world: World, tokens: int, timeout_s: str = "60") -> Stream:
    stream = Stream(world.server.url, COMPLETIONS, small_body(tokens), headers={TIMEOUT: timeout_s})
    world.streams.append(stream)
    return stream


@step(r"a server with 1 place and a queue of (\d+) tokens")
def given_token_bound(world: World, tokens: str) -> None:
    world.configure(head=f"{NO_DRAIN}queue_tokens_max = {tokens}\n", model="batch_size = 1")
    world.start()


@step(r"a server with (\d+) places and a queue of (\d+) requests")
def given_request_bound(world: World, places: str, requests: str) -> None:
    head = f"{NO_DRAIN}queue_requests_max = {requests}\n"
    world.configure(head=head, model=f"batch_size = {places}")
    world.start()


@step(r"a request for (\d+) choices of (\d+) tokens is sent")
def when_choices(world: World, choices: str, tokens: str) -> None:
    body = {**small_body(int(tokens)), "n": int(choices)}
    world.streams.append(Stream(world.server.url, COMPLETIONS, body))
    wait_until(lambda: queued(world) > 0, 5, "its places in the queue")


@step(r"the (\d+) choices are whole")
def then_all_whole(world: World, choices: str) -> None:
    assert world.streams[-1].wait_over().finish_reasons == ["length"] * int(choices)


@step(r"a request for (\d+) tokens is sent behind it")
def when_behind(world: World, tokens: str) -> None:
    before = queued(world)
    send_small(world, int(tokens))
    wait_until(lambda: queued(world) == before + 1, 5, "its place in the queue")


@step(r'a request for (\d+) tokens? is refused with (\d+) "(\w+)" and a Retry-After')
def then_too_many_tokens(world: World, tokens: str, status: str, code: str) -> None:
    answer = world.send(COMPLETIONS, small_body(int(tokens)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (int(status), code)
    assert int(answer.headers["retry-after"]) >= 1


@step(r"(\d+) requests wait")
def then_wait(world: World, count: str) -> None:
    assert queued(world) == int(count)


@step(r"a server with (\d+) places? that has answered (\d+) requests of ([\d.]+) seconds")
def given_measured(world: World, places: str, count: str, each_s: str) -> None:
    head = f"{NO_DRAIN}queue_requests_max = 20\n"
    world.configure(head=head, model=f"batch_size = {places}")
    world.start()
    tokens = int(float(each_s) * TOKENS_PER_S)
    for stream in [send_small(world, tokens) for _ in range(int(count))]:
        assert stream.wait_over().finish_reasons == ["length"]
    world.streams.clear()


@step(r"(\d+) requests of ([\d.]+) seconds are sent")
def when_several_sent(world: World, count: str, each_s: str) -> None:
    for _ in range(int(count)):
        send_small(world, int(float(each_s) * TOKENS_PER_S))
    wait_until(lambda: queued(world) == int(count) - 1, 5, "their places")


@step(
    r'one more with a timeout of (\d+) seconds? is refused with (\d+) "(\w+)"'
    r" within ([\d.]+) seconds"
)
def then_hopeless(world: World, timeout_s: str, status: str, code: str, within_s: str) -> None:
    answer = world.send(COMPLETIONS, small_body(100), headers={TIMEOUT: timeout_s})
    assert (answer.status_code, answer.json()["error"]["code"]) == (int(status), code)
    assert world.answer_s < float(within_s)
    assert int(answer.headers["retry-after"]) >= 1


@step(r"one more with a timeout of (\d+) seconds is answered")
def then_patient(world: World, timeout_s: str) -> None:
    assert send_small(world, 100, timeout_s).wait_over().finish_reasons == ["length"]


@step(r"its queue of (\d+) is filled with requests of ([\d.]+) seconds")
def when_filled(world: World, count: str, each_s: str) -> None:
    [worker] = world.server.workers()
    for _ in range(worker["batch_size"] + int(count)):
        send_small(world, int(float(each_s) * TOKENS_PER_S))
    wait_until(lambda: queued(world) == int(count), 5, "their places")


@step(r"one more is refused with a Retry-After")
def then_told_when(world: World) -> None:
    answer = world.send(COMPLETIONS, small_body(100))
    world.killed_s = time.monotonic()
    assert answer.status_code == 429, answer.text


@step(r"that was the time in which the queue was served, give or take (\d+) %")
def then_truthful(world: World, per_cent: str) -> None:
    """Who had been admitted would have begun when the first of the last batch has ended."""
    assert world.answer is not None
    told_s = int(world.answer.headers["retry-after"])
    [worker] = world.server.workers()
    last = world.streams[-worker["batch_size"] :]
    wait_until(lambda: any(each.is_over.is_set() for each in last), 60, "the queue's end")
    took_s = time.monotonic() - world.killed_s
    assert abs(told_s - took_s) <= took_s * int(per_cent) / 100, (told_s, took_s)


# Clients that do not read.


@step(r"a server that keeps (\d+) KiB for a client, with the lane (on|off)")
def given_keeping(world: World, kib: str, lane: str) -> None:
    switch, kept_bytes = "true" if lane == "on" else "false", int(kib) * 1024
    head = f"[server]\ndrain_s = 1\nparked_bytes_max = {kept_bytes}\nlane = {switch}\n"
    world.configure(head=head)
    world.start()


@step(r"(\d+) clients ask for streams that they do not read")
def when_unread(world: World, count: str) -> None:
    for _ in range(int(count)):
        stream = Stream(world.server.url, COMPLETIONS, UNREAD_BODY, reads=False)
        world.streams.append(stream)


@step(r"the worker has made (\d+) steps")
def when_steps_made(world: World, steps: str) -> None:
    """Of their answers the kernel's buffers hold a part only, then."""
    wait_until(lambda: world.server.workers()[0]["steps"] >= int(steps), 20, "so many steps")


@step(r"a chat is answered within ([\d.]+) seconds?, (\d+) times")
def then_unhindered(world: World, within_s: str, times: str) -> None:
    for _ in range(int(times)):
        answer = world.send(CHAT, chat_body("[tokens=2]"))
        assert answer.status_code == 200, answer.text
        assert world.answer_s < float(within_s)
