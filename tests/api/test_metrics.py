"""``GET /metrics``: what is read off, and what the face counts."""

from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from rbee.errors import ErrorCode, RequestError
from rbee.metrics import families
from tests.api.face import CHAT, COMPLETION, Exchange, Face

ROUTE = "/v1/chat/completions"
# What a fake supervisor without clients and failures cannot show; the specs see the rest.
NOT_HERE = {
    families.WORKER_FAILURES, families.WORKER_KILLS, families.WORKER_LOAD,
    families.WORKER_VRAM_RESERVED, families.AUTH_FAILURES, families.QUEUE_WAIT, families.REQUESTS,
    families.FIRST_TOKEN, families.INTER_TOKEN, families.PROMPT_TOKENS,
    families.COMPLETION_TOKENS, families.FAILOVERS, families.HTTP_DURATION, families.HTTP_REQUESTS,
}  # fmt: skip


def samples(exchange: Exchange) -> dict[str, float]:
    """By name and labels, as Prometheus writes them."""
    assert exchange.status == 200
    found = {}
    for family in text_string_to_metric_families(exchange.body.decode()):
        for each in family.samples:
            labels = ",".join(f'{name}="{each.labels[name]}"' for name in sorted(each.labels))
            found[f"{each.name}{{{labels}}}" if labels else each.name] = each.value
    return found


async def test_everything_that_can_be_read_off_is_there() -> None:
    told = samples(await Face().request("GET", "/metrics"))
    named = {name.partition("{")[0] for name in told}
    assert {each.name for each in {*families.FAMILIES} - NOT_HERE} <= named


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ('rbee_readiness{state="ok"}', 1),
        ('rbee_readiness{state="draining"}', 0),
        ('rbee_queued_requests{model="bee-tiny"}', 3),
        ("rbee_open_requests", 7),
        ('rbee_workers{model="bee-tiny",state="ready"}', 1),
        ('rbee_worker_up{model="bee-tiny",slot="bee-tiny-0"}', 1),
        ('rbee_worker_restarts_total{model="bee-tiny",slot="bee-tiny-0"}', 1),
        ('rbee_worker_breaker{model="bee-tiny",slot="bee-tiny-0",state="closed"}', 1),
        ('rbee_worker_cpu_seconds_total{model="bee-tiny",slot="bee-tiny-0"}', 0.5),
        ('rbee_gpu_state{gpu="0",state="hot"}', 1),
        ('rbee_gpu_temperature_celsius{gpu="0"}', 91),
        ('rbee_disk_state{place="state_dir",state="low"}', 1),
        ('rbee_disk_free_bytes{place="state_dir"}', 1),
        ('rbee_audit_state{state="off"}', 1),
        ('rbee_last_shutdown_duration_seconds{part="drain"}', 1.5),
        ("rbee_last_shutdown_cut_requests", 1),
        ("rbee_last_shutdown_killed_workers", 2),
    ],
)
async def test_states_are_read_off_as_they_are(sample: str, value: float) -> None:
    assert samples(await Face().request("GET", "/metrics"))[sample] == value


async def test_requests_are_counted_by_route_and_status_whatever_they_are() -> None:
    face = Face()
    for path in ("/health/ready", "/health/ready", "/no/such/route", "/v1/models/made-up"):
        await face.request("GET", path)
    told = samples(await face.request("GET", "/metrics"))
    line = 'rbee_http_requests_total{{method="GET",route="{}",status="{}"}}'
    assert told[line.format("/health/ready", 200)] == 2
    assert told[line.format("none", 404)] == 1
    assert told[line.format("/v1/models/{name:path}", 404)] == 1
    assert told['rbee_http_request_duration_seconds_count{route="/health/ready"}'] == 2


async def test_a_method_that_a_client_made_up_is_no_label() -> None:
    face = Face()
    await face.request("MADE-UP", "/v1/models")
    exchange = await face.request("GET", "/metrics")
    assert b"MADE-UP" not in exchange.body
    line = 'rbee_http_requests_total{method="other",route="/v1/models",status="405"}'
    assert samples(exchange)[line] == 1


@pytest.mark.parametrize(("path", "body"), [(ROUTE, CHAT), ("/v1/completions", COMPLETION)])
async def test_answers_are_counted_by_how_they_ended(path: str, body: dict[str, Any]) -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        face.start(nursery, path, body)
        [asked] = await face.generator.wait_asked()
        asked.push("2 + 2", tokens=3)
        asked.push("= 4", finish="stop", tokens=2)
    face.generator.refusals.append(RequestError(ErrorCode.QUEUE_FULL, "the queue is full"))
    await face.post(path, {**body, "model": "made-up"})
    exchange = await face.request("GET", "/metrics")
    assert b"made-up" not in exchange.body
    told = samples(exchange)
    line = 'rbee_requests_total{{model="{}",outcome="{}",route="{}"}}'
    assert told[line.format("bee-tiny", "ok", path)] == 1
    assert told[line.format("unknown", "queue_full", path)] == 1
    assert told['rbee_completion_tokens_total{model="bee-tiny"}'] == 5
    assert told['rbee_prompt_tokens_total{model="bee-tiny"}'] == 7
    assert told['rbee_time_to_first_token_seconds_count{model="bee-tiny"}'] == 1
    assert told['rbee_inter_token_time_seconds_count{model="bee-tiny"}'] == 2
