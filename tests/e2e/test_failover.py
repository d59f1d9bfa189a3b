"""Workers of the CPU engine are killed in the middle of answers, and no answer shows it (R20).

Each text is compared with that of a run in which nothing happened, byte by byte.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.crowd import ask, keep_asking
from tests.e2e.server import Server, serving, wait_until
from tests.e2e.stream import Stream

# Workers come back at once, and as often as they are killed.
CONFIG = """
[worker]
beat_s = 0.5
[restart]
delay_s_min = 0.05
delay_s_max = 0.1
failures_max = 1000
[[model]]
ref = "bee-tiny"
slots = {slots}
"""

# RBEE_STORM_S=60 is the whole storm, of which the suite has a short one.
STORM_S = float(os.environ.get("RBEE_STORM_S", "8"))
KILL_EVERY_S = 2.0
CLIENTS = 200

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LONG = [{"role": "user", "content": "Tell me a long story about a bee and a bear."}]
SEEDED = {"temperature": 0.8, "seed": 11}
# A story is over before anybody can kill its worker; without the token of its end it is not.
ENDLESS = {"prompt": "Once upon a time", "logit_bias": {"3": -100}}
SCHEMA = {
    "type": "object",
    "properties": {"story": {"type": "string", "minLength": 300, "maxLength": 600}},
    "required": ["story"],
    "additionalProperties": False,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": (CHAT, {"messages": LONG, "temperature": 0}),
    "seeded": (CHAT, {"messages": LONG, **SEEDED}),
    "penalties": (
        CHAT,
        {"messages": LONG, **SEEDED, "frequency_penalty": 0.7, "presence_penalty": 0.3},
    ),
    "choices": (CHAT, {"messages": LONG, **SEEDED, "n": 3}),
    "logprobs": (CHAT, {"messages": LONG, "temperature": 0, "logprobs": True, "top_logprobs": 3}),
    "schema": (
        CHAT,
        {
            "messages": LONG,
            **SEEDED,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "story", "schema": SCHEMA},
            },
        },
    ),
    "completion": (COMPLETIONS, {**ENDLESS, **SEEDED}),
    "stop string": (COMPLETIONS, {**ENDLESS, "temperature": 0}),
}
KILLS = 2  # of each case


@pytest.mark.parametrize("slots", [1, 2])
def test_answers_are_the_same_with_and_without_kills(tmp_path: Path, slots: int) -> None:
    with serving(tmp_path, CONFIG.format(slots=slots)) as server:
        for name, (path, more) in CASES.items():
            body = {"model": "bee-tiny", "max_tokens": 400, **more}
            if name == "stop string":
                body["stop"] = [_late_words(server, path, body)]
            expected = _whole(Stream(server.url, path, _with_usage(body)).wait_over())
            assert expected["errors"] == []
            if name == "schema":
                assert len(json.loads(expected["texts"][0])["story"]) >= 300
            for _ in range(KILLS):
                told = _whole(_interrupted(server, path, _with_usage(body)))
                assert told["usage"].pop("failovers") >= 1
                assert told == expected, name


def _with_usage(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "stream_options": {"include_usage": True}}


def _late_words(server: Server, path: str, body: dict[str, Any]) -> str:
    """Words near the end of an answer, of several tokens."""
    text: str = server.post(path, body).json()["choices"][0]["text"]
    middle = len(text) * 3 // 4
    words = text[middle : middle + 25]
    assert len(words) == 25
    return words


def _interrupted(
    server: Server, path: str, body: dict[str, Any], *, is_streamed: bool = True
) -> Stream:
    """An answer whose worker was killed in the middle; those that were quicker do not count."""
    for _ in range(10):
        before = _interruptions(server)
        stream = Stream(server.url, path, body, is_streamed=is_streamed)
        if is_streamed:
            stream.wait_begun()
        else:
            wait_until(lambda: stream.is_over.is_set() or _is_busy(server), 10, "its start")  # noqa: B023
        _kill_busy(server)
        server.wait_event("worker_failed", 10)
        stream.wait_over()
        wait_until(lambda: server.get("/health/ready").status_code == 200, 20, "readiness")
        if _interruptions(server) > before:
            return stream
    raise AssertionError("ten answers were over before their worker was killed")


def _interruptions(server: Server) -> int:
    return sum(event["event"] == "requests_interrupted" for event in server.events)


def _is_busy(server: Server) -> bool:
    return any(worker["requests"] for worker in server.workers())


def _kill_busy(server: Server) -> None:
    """Kill the worker with the most requests."""
    alive = [worker for worker in server.workers() if worker["pid"] is not None]
    os.kill(max(alive, key=lambda worker: worker["requests"])["pid"], signal.SIGKILL)


def _whole(stream: Stream) -> dict[str, Any]:
    """All that a client can tell of an answer, whatever its division into chunks."""
    texts: dict[int, str] = {}
    logprobs: list[Any] = []
    for choice in stream._choices():
        piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        texts[choice["index"]] = texts.get(choice["index"], "") + piece
        logprobs.extend((choice.get("logprobs") or {}).get("content", ()))
    [usage] = [event["usage"] for event in stream.events[:-1] if event.get("usage")]
    return {
        "texts": texts,
        "logprobs": logprobs,
        "finish_reasons": sorted(stream.finish_reasons),
        "usage": usage,
        "errors": stream.errors,
        "last": stream.events[-1],
    }


def test_whole_answers_are_the_same_with_and_without_kills(tmp_path: Path) -> None:
    with serving(tmp_path, CONFIG.format(slots=1)) as server:
        for path, more in (CASES["seeded"], CASES["choices"], CASES["completion"]):
            body = {"model": "bee-tiny", "max_tokens": 400, **more}
            expected = server.post(path, body).json()
            for _ in range(KILLS):
                answer = _interrupted(server, path, body, is_streamed=False).json()
                assert answer["usage"].pop("failovers") >= 1
                assert answer["choices"] == expected["choices"]
                assert answer["usage"] == expected["usage"]


async def test_two_hundred_streams_survive_a_worker_killed_every_two_seconds(
    tmp_path: Path,
) -> None:
    bodies = [
        {
            "model": "bee-tiny",
            "temperature": 0,
            "max_tokens": 300,
            "messages": [{"role": "user", "content": f"Tell me about number {number}."}],
            "stream_options": {"include_usage": True},
        }
        for number in range(20)
    ]
    with serving(tmp_path, CONFIG.format(slots=2)) as server:
        expected = [await ask(server.url, CHAT, body) for body in bodies]
        assert all(answer.is_ended and not answer.errors for answer in expected)
        until_s = time.monotonic() + STORM_S
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_now_and_then, server)
            answers = await keep_asking(
                server.url, bodies, CLIENTS, lambda: time.monotonic() > until_s
            )
            nursery.cancel_scope.cancel()
    kills = sum(event["event"] == "worker_failed" for event in server.events)
    moved = sum(
        event["requests"] for event in server.events if event["event"] == "requests_interrupted"
    )
    failed = [answer for _, answer in answers if answer.errors or not answer.is_ended]
    told = sum((answer.usage or {}).pop("failovers", 0) for _, answer in answers)
    changed = [index for index, answer in answers if answer != expected[index]]
    print(f"{len(answers)} answers, {kills} kills, {moved} interruptions, {len(failed)} failed")
    assert failed == []
    assert changed == []
    assert len(answers) >= CLIENTS
    assert kills >= int(STORM_S / KILL_EVERY_S) - 1
    assert told == moved >= kills


async def _kill_now_and_then(server: Server) -> None:
    while True:
        await trio.sleep(KILL_EVERY_S)
        await trio.to_thread.run_sync(_kill_busy, server)
