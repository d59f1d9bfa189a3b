"""The steps of `specs/350-metrics.feature` on the page itself, and on what is counted."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx2

from rbee.metrics.exposition import OPENMETRICS
from rbee.supervisor.access.api_key import id_of
from tests.access.keys import forged
from tests.e2e.server import NO_TLS, wait_until
from tests.e2e.stream import Stream
from tests.specs.access_room import COMPLETIONS, ask, bearer, keyed
from tests.specs.metrics_room import METRICS, SELECTOR, Scrape, grown, looked, page, scrape
from tests.specs.runner import Steps
from tests.specs.world import World, chat_body

STEPS = Steps()
step = STEPS.step

GIB: Final = 1024**3
PATIENCE_S: Final = 10.0
FORMS: Final = {
    "text": ("text/plain; version=0.0.4; charset=utf-8", ""),
    "OpenMetrics": ("application/openmetrics-text; version=1.0.0; charset=utf-8", "# EOF\n"),
}


# --- values


@step(r"the metrics are noted")
def when_noted(world: World) -> None:
    looked(world).noted = scrape(world)


@step(SELECTOR + r" has grown by (\d+)")
def then_grown(world: World, selector: str, by: str) -> None:
    wait_until(lambda: grown(world, selector) >= int(by), PATIENCE_S, f"{selector} grows by {by}")
    assert grown(world, selector) == int(by)


@step(SELECTOR + r" is (\d+)( GiB)?")
def then_is(world: World, selector: str, value: str, gib: str | None) -> None:
    wanted = int(value) * (GIB if gib else 1)
    wait_until(lambda: scrape(world).sum(selector) == wanted, PATIENCE_S, f"{selector} is {value}")


@step(SELECTOR + r" is between ([\d.]+) and ([\d.]+)")
def then_between(world: World, selector: str, low: str, high: str) -> None:
    value = scrape(world).sum(selector)
    assert value is not None
    assert float(low) <= value <= float(high)


@step(SELECTOR + r" grows with the time")
def then_grows(world: World, selector: str) -> None:
    begun_s = time.monotonic()
    first = scrape(world).sum(selector)
    time.sleep(0.3)
    second = scrape(world).sum(selector)
    took_s = time.monotonic() - begun_s
    assert first is not None
    assert second is not None
    assert first > 0
    assert 0.3 <= second - first <= took_s


@step(r'no metric begins with "(\w+)"')
def then_none(world: World, prefix: str) -> None:
    assert [name for name in scrape(world).names if name.startswith(prefix)] == []


# --- the page


@step(r'the metrics are asked for by a client that accepts "(.*)"')
def when_accepts(world: World, accept: str) -> None:
    world.answer = page(world, accept.replace(r"\x22", '"'))


@step(r"every line of them reads as (text|OpenMetrics), and the content type says so")
def then_reads(world: World, form: str) -> None:
    assert world.answer is not None
    media_type, end = FORMS[form]
    assert world.answer.headers["content-type"] == media_type
    assert world.answer.text.endswith(end)
    told = Scrape(world.answer)
    # Each line but those that describe is a sample, and no sample is made of two lines.
    lines = [line for line in world.answer.text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(told.samples)


@step(r"the metrics are asked for without a key")
def when_keyless(world: World) -> None:
    ask(world, "GET", METRICS)


# --- what clients make up


@step(r"(?:requests are|others of that kind are) made(?: with .+ that are made up)?")
def when_made_up(world: World) -> None:
    """One request for each place in which a client may put what it likes."""
    room, seen = keyed(world), looked(world)
    made_up = ["zza", "zzb"][len(seen.scrapes)] + "canary"  # letters: of methods, too
    wrong = forged(str(id_of(room.good))).text
    url = world.server.url
    for method, path, headers in (
        ("GET", f"/{made_up}", {}),
        ("GET", f"/v1/models/{made_up}", {}),
        ("GET", f"/v1/models?{made_up}={made_up}", {}),
        ("GET", f"/health/live?{made_up}", {}),
        ("DELETE", f"/v1/requests/{made_up}", {}),
        (made_up.upper(), "/v1/models", {}),
        (made_up.upper(), "/health/live", {}),
        ("GET", "/v1/models", {"host": f"{made_up}.example"}),
        ("GET", "/v1/models", {"origin": f"http://{made_up}.example"}),
        ("GET", "/v1/models", {"user-agent": made_up, "x-correlation-id": made_up}),
        ("GET", METRICS, {"accept": f"{OPENMETRICS};version={made_up}"}),
        ("GET", "/v1/models", bearer(wrong)),
        ("GET", "/v1/models", bearer(made_up)),
        ("GET", "/v1/models", {"x-api-key": made_up}),
    ):
        shown = bearer(room.admin) | headers
        httpx2.request(method, url + path, headers=shown, timeout=10, verify=NO_TLS)
    for model in ("synthetic", made_up):
        body = {"model": model, "prompt": made_up, "max_tokens": 3, "user": made_up}
        sent = bearer(room.good) | {"x-correlation-id": f"{made_up}-2"}
        answer = httpx2.post(url + COMPLETIONS, json=body, headers=sent, timeout=30, verify=NO_TLS)
        assert answer.status_code == (200 if model == "synthetic" else 404)
        seen.made_up.append(answer.headers["x-correlation-id"])
    stream = Stream(url, COMPLETIONS, {**body, "model": "synthetic"}, headers=bearer(room.good))
    seen.made_up += [stream.wait_over().events[0]["id"], made_up, wrong.split("_")[2]]
    seen.scrapes.append(scrape(world))


@step(r"nothing of them is told in either form")
def then_untold(world: World) -> None:
    room, seen = keyed(world), looked(world)
    keys = [room.admin, room.good, room.expired]
    secrets = [part for key in keys for part in key.split("_")[1:]]
    address = world.server.url.removeprefix("http://")
    for text in (scrape(world).text, scrape(world, OPENMETRICS).text):
        for told in (*seen.made_up, *secrets, address, "127.0.0.1", str(world.directory)):
            assert told.lower() not in text.lower()


@step(r"the others have made no sample more")
def then_no_more(world: World) -> None:
    first, second = looked(world).scrapes
    assert {each.series for each in second.samples} == {each.series for each in first.samples}
    assert first.sum('rbee_http_requests_total{route="none"}')
    assert first.sum('rbee_http_requests_total{method="other"}')
    assert first.sum('rbee_requests_total{model="unknown",outcome="model_not_found"}') == 1


# --- tokens


@step(r"(\d+) (chats|completions) of (\d+) tokens in (\d+) choices are (whole|streamed) at once")
def when_counted(world: World, count: str, path: str, tokens: str, choices: str, kind: str) -> None:
    more: dict[str, Any] = {"max_tokens": int(tokens), "n": int(choices)}
    if kind == "streamed":
        more["stream_options"] = {"include_usage": True}
    body: dict[str, Any] = {"model": "synthetic", "prompt": "count these"}
    route = COMPLETIONS
    if path == "chats":
        route, body = "/v1/chat/completions", chat_body("count these")
    for _ in range(int(count)):
        world.streams.append(
            Stream(world.server.url, route, body | more, is_streamed=kind == "streamed")
        )
    seen = looked(world)
    for stream in world.streams:
        stream.wait_over()
        assert stream.status == 200, stream.raw
        seen.usages.append(stream.events[-2]["usage"] if stream.events else stream.json()["usage"])
    seen.choices += int(count) * int(choices)
    told = [usage["completion_tokens"] for usage in seen.usages]
    assert told == [int(tokens) * int(choices)] * int(count)


@step(r"tokens are counted as their usage says, and their times for each choice")
def then_counted(world: World) -> None:
    seen = looked(world)
    completion = sum(usage["completion_tokens"] for usage in seen.usages)
    prompt = sum(usage["prompt_tokens"] for usage in seen.usages)
    model = '{model="synthetic"}'
    assert {
        "answers": grown(world, f"rbee_completion_tokens_total{model}"),
        "prompts": grown(world, f"rbee_prompt_tokens_total{model}"),
        "first": grown(world, f"rbee_time_to_first_token_seconds_count{model}"),
    } == {"answers": completion, "prompts": prompt, "first": seen.choices}
    between = grown(world, f"rbee_inter_token_time_seconds_count{model}")
    if world.streams[0].events:
        assert between == completion - sum(map(_came_first, world.streams))
    else:  # nobody outside knows how many came with the first
        assert (completion > seen.choices) <= between <= completion - seen.choices


def _came_first(stream: Stream) -> int:
    """Tokens of its choices' first chunks: a busy machine may bring several in one."""
    first: dict[int, str] = {}
    for choice in stream._choices():
        text = choice.get("text") or (choice.get("delta") or {}).get("content")
        if text:
            first.setdefault(choice["index"], text)
    return sum(len(text.split()) for text in first.values())


# --- many at once


@step(r"(\d+) scrapes at once are answered while they run")
def then_scraped(world: World, count: str) -> None:
    for stream in world.streams:
        stream.wait_begun()
    accepts = itertools.cycle(["", OPENMETRICS])
    with ThreadPoolExecutor(int(count)) as clients:
        told = [clients.submit(page, world, next(accepts)) for _ in range(int(count))]
        answers = [each.result() for each in told]
    assert not any(stream.is_over.is_set() for stream in world.streams)
    assert all(Scrape(answer).sum("rbee_open_requests") for answer in answers)


@step(r"the log tells of the scrape that was refused, and of none that was answered")
def then_quiet(world: World) -> None:
    def told() -> list[int]:
        return [
            each["status"]
            for each in world.server.events
            if each["event"] == "request_done" and each["route"] == METRICS
        ]

    wait_until(lambda: 400 in told(), PATIENCE_S, "the refused one is told")
    assert 200 not in told()
