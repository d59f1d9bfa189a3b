"""The steps of `specs/300-authentication.feature` on keys that are served before others."""

import json
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from tests.e2e.server import Server, synthetic_config, wait_until
from tests.e2e.stream import Stream
from tests.specs.access_room import (
    COMPLETIONS,
    KEYED,
    ask,
    bearer,
    command,
    generate,
    head_of,
    keyed,
    made,
    with_keys,
)
from tests.specs.runner import Steps
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step

LONG_TOKENS: Final = 4000


@dataclass
class Waiting:
    """The streams that wait, in the order in which they were asked for."""

    classes: list[str] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)


_WAITING: WeakKeyDictionary[World, Waiting] = WeakKeyDictionary()


def _ask(world: World, priority: str, tokens: int) -> Stream:
    key = made(world, limits={"priority": priority})
    body = {"model": "synthetic", "prompt": "hi", "max_tokens": tokens}
    stream = Stream(world.server.url, COMPLETIONS, body, headers=bearer(key))
    world.streams.append(stream)
    return stream


def _queued(world: World) -> int:
    status = ask(world, "GET", "/v1/rbee/status", keyed(world).admin)
    queued: int = status.json()["queued"]
    return queued


@step(r"a server with keys, 1 place and a queue of (\d+)")
def given_one_place(world: World, count: str) -> None:
    room = KEYED[world] = with_keys(world.directory / "state")
    head = head_of(room.state_dir, f"drain_s = 0\nqueue_requests_max = {count}")
    config = synthetic_config(head=head, model="batch_size = 1", synthetic="first_token_s = 0.0\n")
    world.servers.append(Server(world.directory, config))
    world.servers[-1].ready()


@step(r"a long answer for a low key takes the place")
def given_taken(world: World) -> None:
    assert _ask(world, "low", LONG_TOKENS).has_begun.wait(10)


@step(r"requests of these keys wait behind it: ([\w, ]+)")
def when_waiting(world: World, classes: str) -> None:
    waiting = _WAITING[world] = Waiting(classes.split(", "))
    for count, priority in enumerate(waiting.classes, 1):
        waiting.streams.append(_ask(world, priority, 20))
        wait_until(lambda count=count: _queued(world) == count, 10, "its place in the queue")


@step(r"a request of a high key is refused, as the queue is full for all")
def then_full(world: World) -> None:
    answer = generate(world, made(world, limits={"priority": "high"}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1


@step(r"the long answer is broken off")
def when_broken_off(world: World) -> None:
    world.streams[0].cut()


@step(r"they are answered in this order: ([\d, ]+)")
def then_order(world: World, order: str) -> None:
    streams = _WAITING[world].streams
    for stream in streams:
        assert stream.wait_over().finish_reasons == ["length"], stream.raw
    ends = sorted(range(len(streams)), key=lambda number: streams[number].over_unix_s)
    assert [number + 1 for number in ends] == [int(each) for each in order.split(", ")]


@step(r"the operator makes a high key by command, and the listings tell its class")
def then_listed(world: World) -> None:
    state = ("--state-dir", str(keyed(world).state_dir))
    told = command(
        world, "keys", "create", "--role", "user", "--priority", "high", "--json", *state
    )
    key = json.loads(told)
    assert key["limits"] == {"priority": "high"}
    assert "priority=high" in command(world, "keys", "list", *state)
    wait_until(
        lambda: ask(world, "GET", "/v1/auth/permission", key["key"]).status_code == 200,
        5, "the server knows it",
    )  # fmt: skip
    assert world.answer is not None
    assert world.answer.json()["limits"] == {"priority": "high"}
