"""The steps of `specs/340-deadlines.feature`."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from tests.e2e.server import wait_until
from tests.e2e.stream import Stream
from tests.specs.runner import Steps
from tests.specs.world import World, chat_body

STEPS = Steps()
step = STEPS.step

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TIMEOUT, DEADLINE = "X-Request-Timeout", "X-Request-Deadline"
CORRELATION = "X-Correlation-ID"

# Nothing that is still open when a scenario ends is waited for.
NO_DRAIN = "[server]\ndrain_s = 0\n"

# What a deadline of the far end, told to the millisecond, may differ from one that is counted here.
TOLD_WITHIN_S = 0.3

# Of the batch of both engines. A long answer of bee-tiny takes all of them.
PLACES = 8

# More than one of them at once, and of so many letters, takes bee-tiny some seconds.
LONG_STORY = {
    "type": "json_schema",
    "json_schema": {
        "name": "story",
        "schema": {
            "type": "object",
            "properties": {"story": {"type": "string", "minLength": 6000}},
            "required": ["story"],
            "additionalProperties": False,
        },
    },
}


def long_body(world: World) -> dict[str, Any]:
    """Of a chat whose answer takes many seconds."""
    if world.model == "synthetic":
        return chat_body("hello", '{"max_tokens": 4000}')
    more = {"response_format": LONG_STORY, "n": 8, "max_tokens": 1900, "temperature": 0}
    return chat_body("Tell me a story.", json.dumps(more), model=world.model)


def send_long(world: World, kind: str = "streamed", timeout_s: str | None = None) -> Stream:
    number = len(world.streams)
    headers = {CORRELATION: f"deadlines-{number}"}
    if timeout_s is not None:
        headers[TIMEOUT] = timeout_s
    stream = Stream(
        world.server.url, CHAT, long_body(world), is_streamed=kind == "streamed", headers=headers
    )
    world.streams.append(stream)
    return stream


def requests_at_work(world: World) -> int:
    return sum(worker["requests"] for worker in world.server.workers())


def outcomes(world: World) -> list[str]:
    """Of all generations that have ended, by the log."""
    done = [each for each in world.server.events if each["event"] == "request_done"]
    return [each["outcome"] for each in done if each["route"] in {CHAT, COMPLETIONS}]


def queued(world: World) -> int:
    waiting: int = world.server.get("/v1/rbee/status").json()["queued"]
    return waiting


# Deadlines that are asked for, and told.


@step(r"a server whose requests may take (\d+) seconds, and (\d+) if they ask for it")
def given_deadlines(world: World, usual_s: str, highest_s: str) -> None:
    world.configure(head=f"[server]\ndeadline_s = {usual_s}\ndeadline_s_max = {highest_s}\n")
    world.start()


@step(
    r"a request(?: with a timeout of (\d+) seconds)?(?:(?: and| with) a deadline in (\d+) seconds)?"
    r" is due in (\d+) seconds"
)
def then_due_in(world: World, timeout_s: str | None, deadline_s: str | None, due_s: str) -> None:
    headers: dict[str, str] = {}
    if timeout_s is not None:
        headers[TIMEOUT] = timeout_s
    now = datetime.now(UTC)
    if deadline_s is not None:
        # Of an hour east: an offset counts.
        there = (now + timedelta(seconds=int(deadline_s) + 3600)).replace(tzinfo=None)
        headers[DEADLINE] = f"{there.isoformat()}+01:00"
    answer = world.send(CHAT, chat_body("[tokens=2]"), headers=headers)
    assert answer.status_code == 200, answer.text
    told_s = (datetime.fromisoformat(answer.headers[DEADLINE]) - now).total_seconds()
    assert abs(told_s - int(due_s)) < TOLD_WITHIN_S


@step(r'a request with the header "(.+): (.+)" is refused with (\d+) "(\w+)"')
def then_refused_for(world: World, header: str, value: str, status: str, code: str) -> None:
    answer = world.send(CHAT, chat_body("hello"), headers={header: value})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (int(status), code), answer.text
    assert error.get("param") == (header if status == "400" else None)


@step(r"the worker has not made a step")
def then_no_step(world: World) -> None:
    [worker] = world.server.workers()
    assert (worker["steps"], worker["requests"]) == (0, 0)


# Deadlines that pass.


@step(
    r"a server with (synthetic|bee-tiny), the lane (on|off), and first tokens that take"
    r" (\d+) seconds"
)
def given_engine(world: World, engine: str, lane: str, first_token_s: str) -> None:
    head = f"{NO_DRAIN}lane = {'true' if lane == 'on' else 'false'}\n"
    if engine == "synthetic":
        world.configure(
            head=head,
            model=f"batch_size = {PLACES}",
            synthetic=f"first_token_s = {first_token_s}",
        )
    else:
        world.configure_bee_tiny(head=head, places=PLACES)
    world.start()


@step(r"its places are taken by (nobody|long answers)")
def given_place_taken(world: World, who: str) -> None:
    if who == "nobody":
        return
    for _ in range(PLACES // long_body(world).get("n", 1)):
        send_long(world).wait_begun()
    world.at_work = requests_at_work(world)
    assert world.at_work == PLACES


@step(r"a (streamed|whole) request with a timeout of ([\d.]+) seconds is sent")
def when_timed_request(world: World, kind: str, timeout_s: str) -> None:
    send_long(world, kind, timeout_s)


@step(r"a (streamed|whole) request is sent and worked on")
def when_long_request(world: World, kind: str) -> None:
    stream = send_long(world, kind)
    if kind == "streamed":
        stream.wait_begun()
    else:
        wait_until(lambda: requests_at_work(world) > 0, 5, "its start")


@step(r"another streamed request is sent")
def when_another(world: World) -> None:
    send_long(world)


def wait_ended_in_time(world: World, within_s: str) -> Stream:
    """The last stream, which ended not before its deadline, and not much later."""
    stream = world.streams[-1].wait_over(10)
    ended_s = stream.over_unix_s
    due_s = datetime.fromisoformat(stream.headers[DEADLINE.lower()]).timestamp()
    assert -0.01 < ended_s - due_s < float(within_s)
    return stream


def error_before_the_first_token(stream: Stream, status: str) -> dict[str, Any]:
    assert (stream.status, stream.events) == (int(status), [])
    error: dict[str, Any] = stream.json()["error"]
    return error


def error_event(stream: Stream) -> dict[str, Any]:
    """The one error of a stream that had begun: its last event but "[DONE]"."""
    assert stream.status == 200
    assert stream.text
    assert stream.finish_reasons == []
    *_, last, done = stream.events
    assert done == "[DONE]"
    assert stream.errors == [last["error"]]
    error: dict[str, Any] = last["error"]
    return error


@step(r'it ends with (\d+) "(\w+)" within ([\d.]+) seconds of its deadline')
def then_status_in_time(world: World, status: str, code: str, within_s: str) -> None:
    stream = wait_ended_in_time(world, within_s)
    assert error_before_the_first_token(stream, status)["code"] == code


@step(r'it ends with the error event "(\w+)" within ([\d.]+) seconds of its deadline')
def then_event_in_time(world: World, code: str, within_s: str) -> None:
    assert error_event(wait_ended_in_time(world, within_s))["code"] == code


@step(r"the worker works on (nothing|long answers) within ([\d.]+) seconds")
def then_works_on(world: World, what: str, within_s: str) -> None:
    left = 0 if what == "nothing" else world.at_work
    wait_until(lambda: requests_at_work(world) == left, float(within_s), f"{left} at work")
    if left:
        assert not world.streams[0].is_over.is_set()


@step(r'the log tells the outcome "(\w+)"(?: of (\d+) requests)?')
def then_outcome(world: World, outcome: str, count: str | None) -> None:
    wait_until(lambda: outcomes(world).count(outcome) >= int(count or 1), 20, outcome)
    assert outcomes(world).count(outcome) == int(count or 1)


# A token's time.


@step(
    r"a server that waits ([\d.]+) seconds for a token, whose worker stops bringing them after"
    r" (\d+) steps"
)
def given_silent(world: World, wait_s: str, steps: str) -> None:
    world.configure(
        head=f"{NO_DRAIN}first_token_timeout_s = {wait_s}\nstall_timeout_s = {wait_s}\n",
        synthetic=f'fault = "silent_step"\nfault_after_steps = {steps}',
    )
    world.start()


def check_token(error: dict[str, Any], code: str, token: str) -> None:
    assert error["code"] == code
    assert token in error["message"]


@step(r'it ends with the error event "(\w+)", since "(.+)" did not come')
def then_event_of_token(world: World, code: str, token: str) -> None:
    check_token(error_event(world.streams[-1].wait_over(5)), code, token)


@step(r'it ends with (\d+) "(\w+)", since "(.+)" did not come')
def then_status_of_token(world: World, status: str, code: str, token: str) -> None:
    stream = world.streams[-1].wait_over(5)
    check_token(error_before_the_first_token(stream, status), code, token)


# Cancelling.


def cancel(world: World, name: str) -> dict[str, Any]:
    stream = world.streams[-1]
    request_id = f"deadlines-{len(world.streams) - 1}"
    if name == "answer id":
        request_id = stream.events[0]["id"]
    answer = httpx2.delete(f"{world.server.url}/v1/requests/{request_id}", timeout=10)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert (told["id"], told["object"]) == (request_id, "request")
    return told


@step(r"it is cancelled by its (answer id|correlation id)")
def when_cancelled(world: World, name: str) -> None:
    assert cancel(world, name)["cancelled"] is True


@step(r"to cancel it by its (answer id|correlation id) once more finds nothing")
def then_cancelled_once(world: World, name: str) -> None:
    assert cancel(world, name)["cancelled"] is False


@step(r"it ends as cancelled")
def then_cancelled(world: World) -> None:
    stream = world.streams[-1].wait_over(1)
    has_begun = bool(stream.events)
    error = error_event(stream) if has_begun else error_before_the_first_token(stream, "410")
    assert error["code"] == "cancelled"


@step(r"a (streamed|whole) request is sent and waits")
def when_waits(world: World, kind: str) -> None:
    send_long(world, kind)
    wait_until(lambda: queued(world) == 1, 5, "its place in the queue")
