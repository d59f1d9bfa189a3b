"""The steps of `specs/120-inference.feature`."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2

from rbee.client import Client
from tests.e2e.server import wait_until
from tests.specs.runner import Steps
from tests.specs.world import World, chat_body, numbers

STEPS = Steps()
step = STEPS.step

CHAT = "/v1/chat/completions"


@step(r"a server with 1 worker of batch size 1 and a queue of 1")
def given_narrow_server(world: World) -> None:
    world.configure(head="[server]\nqueue_requests_max = 1\n", model="batch_size = 1")
    world.start()


@step(r"a server with 1 worker whose first token takes 1 second")
def given_slow_server(world: World) -> None:
    world.configure(synthetic="first_token_s = 1.0")
    world.start()


@step(r'a server with 2 workers that will (\w+) when asked "(.+)"')
def given_poisonable_server(world: World, fault: str, prompt: str) -> None:
    world.configure(model="slots = 2", synthetic=f'fault = "{fault}"\nfault_prompt = "{prompt}"')
    world.start()


@step(r'the prompt "(.+)" is sent as a chat(?: with (\{.+\}))?')
def when_chat(world: World, prompt: str, more: str | None) -> None:
    world.send(CHAT, chat_body(prompt, more or "{}"))


@step(r'the prompt "(.+)" is sent as a completion')
def when_completion(world: World, prompt: str) -> None:
    world.send("/v1/completions", {"model": "synthetic", "prompt": prompt})


@step(r'a chat is sent to the model "(.+)"')
def when_chat_to(world: World, model: str) -> None:
    world.send(CHAT, chat_body("hello", model=model))


@step(r'the prompt "(.+)" is streamed as a chat with (\{.+\})')
def when_chat_streamed(world: World, prompt: str, more: str) -> None:
    body = chat_body(prompt, more)
    options: dict[str, Any] = {"json": {**body, "stream": True}, "timeout": 60}
    with httpx2.stream("POST", world.server.url + CHAT, **options) as answer:
        world.lines = [line for line in answer.iter_lines() if line]


@step(r"the streamed text is the numbers from 0 to (\d+)")
def then_streamed_text(world: World, last: str) -> None:
    chunks = [json.loads(line[6:]) for line in world.lines if line != "data: [DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(d.get("content") or "" for d in deltas) == numbers(int(last) + 1)


@step(r'a local program streams the prompt "(.+)"')
def when_local_stream(world: World, prompt: str) -> None:
    with Client(world.server.run_dir) as client:
        body = chat_body(prompt)
        told = client.chat(
            body["messages"], model=body["model"], correlation_id="local", stream=True
        )
        world.lines = [delta.text for delta in told]


@step(r"the local program is told the numbers from 0 to (\d+)")
def then_local_text(world: World, last: str) -> None:
    assert "".join(world.lines) == numbers(int(last) + 1)


@step(r"the request is in the log as one of the local face")
def then_local_in_log(world: World) -> None:
    assert world.server.wait_event("request_done", correlation_id="local")["face"] == "local"


@step(r'the last chunks are a finish reason "stop", the usage of (\d+) tokens and "\[DONE\]"')
def then_last_chunks(world: World, tokens: str) -> None:
    assert world.lines[-1] == "data: [DONE]"
    usage, finish = (json.loads(line[6:]) for line in (world.lines[-2], world.lines[-3]))
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == int(tokens)
    assert finish["choices"][0]["finish_reason"] == "stop"


@step(r'the answer is 200 with the text "(.+)"')
def then_answer_text(world: World, text: str) -> None:
    assert world.answer is not None
    assert world.answer.status_code == 200, world.answer.text
    assert _text(world.answer.json()["choices"][0]) == text


@step(r'the answer has (\d+) choices with the text "(.+)"')
def then_choices(world: World, count: str, text: str) -> None:
    assert world.answer is not None
    choices = world.answer.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(int(count)))
    assert [_text(choice) for choice in choices] == [text] * int(count)


def _text(choice: dict[str, Any]) -> str:
    text: str = choice["text"] if "text" in choice else choice["message"]["content"]
    return text


@step(r'the finish reason is "(\w+)"')
def then_finish(world: World, reason: str) -> None:
    assert world.answer is not None
    assert world.answer.json()["choices"][0]["finish_reason"] == reason


@step(r"the usage counts (\d+) tokens of the answer")
def then_usage(world: World, tokens: str) -> None:
    assert world.answer is not None
    usage = world.answer.json()["usage"]
    assert usage["completion_tokens"] == int(tokens)
    assert usage["total_tokens"] == usage["prompt_tokens"] + int(tokens)
    assert usage["prompt_tokens"] > 0


@step(r"the answer bears a correlation id")
def then_correlation_id(world: World) -> None:
    assert world.answer is not None
    assert len(world.answer.headers["x-correlation-id"]) >= 8


@step(r'the answer is (\d+) "(\w+)"(?: that names "(\w+)")?')
def then_error(world: World, status: str, code: str, param: str | None) -> None:
    error = world.expect_error(int(status), code)
    assert param is None or error["param"] == param


@step(r'the answer is (\d+) "(\w+)" within ([\d.]+) seconds')
def then_error_in_time(world: World, status: str, code: str, within_s: str) -> None:
    then_error(world, status, code, None)
    assert world.answer_s < float(within_s)


@step(r'the answer is 400 with details on "(\w+)", "(\w+)" and "(\w+)"')
def then_details(world: World, *fields: str) -> None:
    assert world.answer is not None
    assert world.answer.status_code == 400
    details = world.answer.json()["error"]["details"]
    assert {detail["field"] for detail in details} == set(fields)
    assert all(detail["problem"] for detail in details)


@step(r'the answer does not hold "(.+)"')
def then_no_echo(world: World, canary: str) -> None:
    assert world.answer is not None
    assert canary not in world.answer.text


@step(r"a request for (\d+) tokens is waiting for its whole answer")
def when_waiting(world: World, tokens: str) -> None:
    world.stream("hello", int(tokens), streamed=False)
    wait_until(lambda: world.server.workers()[0]["requests"] == 1, 10, "the request's start")


@step(r"the client goes away")
def when_client_leaves(world: World) -> None:
    world.streams[-1].cut()


@step(r"the worker has no open request within ([\d.]+) seconds")
def then_no_request(world: World, within_s: str) -> None:
    def is_idle() -> bool:
        return all(worker["requests"] == 0 for worker in world.server.workers())

    wait_until(is_idle, float(within_s), "no open request")


@step(r"(\d+) requests for (\d+) tokens are sent at once")
def when_many_sent(world: World, count: str, tokens: str) -> None:
    for number in range(int(count)):
        world.stream("hello", int(tokens))
        if number == 0:
            world.streams[0].wait_begun()


@step(r'one of them is refused with 429 "queue_full" and a Retry-After')
def then_one_refused(world: World) -> None:
    for stream in world.streams:
        stream.wait_over()
    refused = [stream for stream in world.streams if stream.status != 200]
    assert [stream.status for stream in refused] == [429]
    assert json.loads(refused[0].raw)["error"]["code"] == "queue_full"
    assert int(refused[0].headers["retry-after"]) >= 1


@step(r"the others are answered")
def then_others_answered(world: World) -> None:
    answered = [stream for stream in world.streams if stream.status == 200]
    assert len(answered) == len(world.streams) - 1
    assert all(stream.text == numbers(400) for stream in answered)


@step(r"a request for (\d+) tokens with a timeout of 1 second is sent")
def when_timed(world: World, tokens: str) -> None:
    body = chat_body("hello", f'{{"max_tokens": {tokens}}}')
    world.send(CHAT, body, headers={"x-request-timeout": "1"})


@step(r"a request for (\d+) tokens is sent and the worker is killed before the first token")
def when_killed_early(world: World, tokens: str) -> None:
    sent = _in_background(lambda: world.send(CHAT, chat_body("hi", f'{{"max_tokens": {tokens}}}')))
    wait_until(lambda: world.server.workers()[0]["requests"] == 1, 10, "the request's start")
    os.kill(world.server.worker_pids()[0], signal.SIGKILL)
    sent.join(30)


def _in_background(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


@step(r"a chat is answered")
def then_chat_answered(world: World) -> None:
    answer = world.server.chat("hello", max_tokens=3)
    assert answer.status_code == 200, answer.text


@step(r"(\d+) requests for (\d+) tokens are streamed at once")
def when_many_streamed(world: World, count: str, tokens: str) -> None:
    for _ in range(int(count)):
        world.stream("hello", int(tokens))


@step(r"each of the (\d+) streams is the numbers from 0 to (\d+)")
def then_all_whole(world: World, count: str, last: str) -> None:
    whole = numbers(int(last) + 1)
    streams = [stream.wait_over() for stream in world.streams]
    broken = [stream.raw[-500:] for stream in streams if stream.text != whole]
    assert (len(streams), broken) == (int(count), [])


@step(r'"(/.+)" lists the model "(\w+)"')
def then_lists(world: World, path: str, model: str) -> None:
    listed = world.server.get(path).json()
    assert listed["object"] == "list"
    [entry] = listed["data"]
    assert (entry["id"], entry["object"]) == (model, "model")
    assert entry["created"] <= time.time()


@step(r'"(/.+)" is asked for with the (host|origin) "(.+)"')
def when_asked_with(world: World, path: str, header: str, value: str) -> None:
    world.answer = httpx2.get(world.server.url + path, headers={header: value}, timeout=10)
