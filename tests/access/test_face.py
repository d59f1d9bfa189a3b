"""What keys change of the two faces: waiting, limits, models, other people's requests, CORS."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Priority
from rbee.supervisor.access.api_key import new_key
from rbee.supervisor.access.throttle import ThrottleLimits
from tests.access.keys import NOW_UNIX_S
from tests.access.served import Keyed, request, serve_keyed
from tests.api.face import CHAT, COMPLETION
from tests.api.served import count_to_five

FACES: Final = pytest.mark.parametrize("has_lane", [True, False], ids=["lane", "hypercorn"])
CHATS: Final = "/v1/chat/completions"
STREAM: Final = {**CHAT, "stream": True}


@FACES
async def test_keys_are_asked_for_from_the_first_one_on(tmp_path: Path, has_lane: bool) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        assert (await keyed.ask("GET", "/v1/models")).status == 200
        assert (await keyed.ask("GET", "/v1/models", "Bearer none")).status == 200
        key = await keyed.key("viewer")
        assert (await keyed.ask("GET", "/v1/models")).status == 401
        assert (await keyed.ask("GET", "/v1/models", key)).status == 200


@FACES
async def test_a_request_with_a_new_key_waits_and_holds_up_nobody(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane) as keyed:
        warm, cold = await keyed.key(), await keyed.key()
        assert (await keyed.ask("GET", "/v1/models", warm)).status == 200
        verify, gate = keyed.stand.verifier._fits, trio.Event()

        def slowly(text: str, hashed: str) -> bool:
            trio.from_thread.run(gate.wait)
            return verify(text, hashed)

        keyed.stand.verifier._fits = slowly
        async with await keyed.served.connect() as client:
            # The second request is sent ahead: it has its turn when the first was answered.
            ahead = request("GET", "/v1/models", cold)
            await client.send(request("POST", CHATS, cold, CHAT) + ahead)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for _ in range(3):
                assert (await keyed.ask("POST", CHATS, warm, CHAT)).status == 200
            gate.set()
            told = await client.read_answer()
            assert told.status == 200
            assert json.loads(told.body)["usage"]["completion_tokens"] == 5
            assert (await client.read_answer()).status == 200
        assert keyed.served.errors == []


@FACES
async def test_a_client_that_goes_while_its_key_is_looked_at_is_forgotten(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        cold, gate = await keyed.key(), trio.Event()
        keyed.stand.verifier._fits = lambda _text, _hash: trio.from_thread.run(gate.wait) is None
        client = await keyed.served.connect()
        await client.send(request("POST", CHATS, cold, CHAT))
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.reset()
        await trio.testing.wait_all_tasks_blocked(0.01)
        gate.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await keyed.ask("GET", "/v1/models", cold)).status == 200
        assert keyed.served.errors == []
        assert [each.cancelled for each in keyed.served.generator.asked] in ([], ["client_gone"])


@FACES
async def test_a_verification_that_takes_too_long_is_given_up(
    tmp_path: Path, has_lane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("rbee.supervisor.api.asgi", "rbee.supervisor.lane.connection"):
        monkeypatch.setattr(f"{module}.VERIFICATION_TIMEOUT_S", 0.05)
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        cold, gate = await keyed.key(), trio.Event()
        keyed.stand.verifier._fits = lambda _text, _hash: trio.from_thread.run(gate.wait) is None
        told = await keyed.ask("GET", "/v1/models", cold)
        assert (told.status, told.error["code"]) == (429, "authentication_throttled")
        assert int(told.headers["retry-after"]) >= 1
        gate.set()


@FACES
async def test_failures_are_throttled_with_a_time_to_come_back(
    tmp_path: Path, has_lane: bool
) -> None:
    limits = ThrottleLimits(3, 0.1, 100, 1.0)
    async with serve_keyed(tmp_path, has_lane=has_lane, throttle_limits=limits) as keyed:
        warm = await keyed.key()
        assert (await keyed.ask("GET", "/v1/models", warm)).status == 200
        statuses = [(await keyed.ask("GET", "/v1/models", new_key())).status for _ in range(6)]
        assert statuses == [401] * 3 + [429] * 3
        told = await keyed.ask("GET", "/v1/models", new_key())
        assert told.headers["retry-after"] == "10"
        assert told.error["code"] == "authentication_throttled"
        assert (await keyed.ask("GET", "/v1/models", warm)).status == 200
        [first] = keyed.stand.audit.of("auth.failure")
        assert (first.reason, first.address, first.times) == ("unknown", "127.0.0.1", 1)


@FACES
async def test_only_the_models_of_a_key_are_there_for_it(tmp_path: Path, has_lane: bool) -> None:
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane) as keyed:
        bound = await keyed.key(models=("bee-tiny",))
        other = await keyed.key(models=("org/large",))
        listed = json.loads((await keyed.ask("GET", "/v1/models", bound)).body)
        assert [each["id"] for each in listed["data"]] == ["bee-tiny"]
        assert (await keyed.ask("GET", "/v1/models/bee-tiny", bound)).status == 200
        assert (await keyed.ask("POST", CHATS, bound, CHAT)).status == 200
        unknown = await keyed.ask("GET", "/v1/models/none", other)
        for told in (
            await keyed.ask("GET", "/v1/models/bee-tiny", other),
            await keyed.ask("POST", CHATS, other, CHAT),
            await keyed.ask("POST", "/v1/completions", other, COMPLETION),
        ):
            assert told.status == 404
            masked = {**told.error, "correlation_id": ""}
            assert masked == {**unknown.error, "correlation_id": ""}
        assert len(keyed.served.generator.asked) == 1


@FACES
async def test_limits_hold_and_answers_tell_what_is_left(tmp_path: Path, has_lane: bool) -> None:
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane) as keyed:
        key = await keyed.key(limits={"requests_per_minute": 2, "tokens_per_minute": 1000})
        told = await keyed.ask("POST", CHATS, key, CHAT)
        assert told.headers["x-ratelimit-limit-requests"] == "2"
        assert told.headers["x-ratelimit-remaining-requests"] == "1"
        usage = json.loads(told.body)["usage"]["total_tokens"]
        told = await keyed.ask("POST", CHATS, key, STREAM)
        assert told.headers["x-ratelimit-remaining-tokens"] == str(1000 - usage)
        told = await keyed.ask("POST", CHATS, key, CHAT)
        assert (told.status, told.error["code"]) == (429, "rate_limited")
        assert told.headers["retry-after"] == "30"
        assert told.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await keyed.ask("GET", "/v1/models", key)).status == 200
        [exceeded] = keyed.stand.audit.of("limit.exceeded")
        assert (exceeded.limit, exceeded.subject, exceeded.allowed) == (
            "requests_per_minute", key.id, 2,
        )  # fmt: skip


@FACES
async def test_what_is_refused_behind_the_limits_does_not_count(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane) as keyed:
        key = await keyed.key(limits={"requests_per_minute": 2, "concurrent_requests": 1})
        for _ in range(5):
            keyed.served.generator.refusals = [RequestError(ErrorCode.QUEUE_FULL, "it is full")]
            told = await keyed.ask("POST", CHATS, key, CHAT)
            assert (told.status, told.error["code"]) == (429, "queue_full")
            assert told.headers["x-ratelimit-remaining-requests"] == "2"
        told = await keyed.ask("POST", CHATS, key, CHAT)
        assert (told.status, told.headers["x-ratelimit-remaining-requests"]) == (200, "1")


@FACES
async def test_tokens_of_a_stream_that_is_broken_off_are_counted(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        key = await keyed.key(limits={"tokens_per_minute": 60})
        async with await keyed.served.connect() as client:
            await client.send(request("POST", CHATS, key, STREAM))
            [asked] = await keyed.served.generator.wait_asked()
            for number in range(70):
                asked.push(f"{number} ")
            await client.read_until(b"69 ")
        told = await keyed.ask("POST", CHATS, key, CHAT)
        assert (told.status, told.error["code"]) == (429, "rate_limited")
        assert "60 tokens per minute" in told.error["message"]


@FACES
@pytest.mark.parametrize("priority", [None, *Priority])
async def test_a_request_has_the_class_of_its_key(
    tmp_path: Path, has_lane: bool, priority: Priority | None
) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        key = await keyed.key(limits={} if priority is None else {"priority": priority.value})
        async with await keyed.served.connect() as client:
            await client.send(request("POST", CHATS, key, STREAM))
            [asked] = await keyed.served.generator.wait_asked()
            assert asked.priority is (priority or Priority.NORMAL)


@FACES
async def test_a_place_is_given_back_however_a_request_ends(tmp_path: Path, has_lane: bool) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        key, generator = await keyed.key(limits={"concurrent_requests": 1}), keyed.served.generator
        for number, ending in enumerate(("stop", "hang up", "fail", "cancel")):
            async with await keyed.served.connect() as client:
                await client.send(request("POST", CHATS, key, STREAM, x_correlation_id="mine"))
                asked = (await generator.wait_asked(number + 1))[number]
                asked.push("1 ")
                await client.read_until(b"1 ")
                told = await keyed.ask("POST", CHATS, key, CHAT)
                assert (told.status, told.error["code"]) == (429, "rate_limited")
                if ending == "stop":
                    asked.push("2 ", finish="stop")
                elif ending == "cancel":
                    assert (await keyed.ask("DELETE", "/v1/requests/mine", key)).status == 200
                elif ending == "fail":
                    asked.fail(RequestError(ErrorCode.WORKER_FAILED, "it ended"))
                if ending != "hang up":
                    await client.read_until(b"[DONE]")
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(generator.asked) == 4


@FACES
async def test_running_streams_end_with_their_key_and_those_of_others_go_on(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        keys = [await keyed.key(), await keyed.key(expires_s=NOW_UNIX_S + 5), await keyed.key()]
        clients = [await keyed.served.connect() for _ in keys]
        for number, (client, key) in enumerate(zip(clients, keys, strict=True)):
            await client.send(request("POST", CHATS, key, STREAM))
            (await keyed.served.generator.wait_asked(number + 1))[number].push("1 ")
            await client.read_until(b"1 ")
        keyed.end_lapsed()
        assert [each.cancelled for each in keyed.served.generator.asked] == [None] * 3
        await keyed.keeper.revoke(keys[0].id, 5, "lost")
        keyed.stand.now_unix_s += 5
        keyed.end_lapsed()
        for client, words in zip(clients, (b"was revoked", b"has expired"), strict=False):
            told = await client.read_until(b"[DONE]\n\n")
            assert words in told
            assert told.count(b'"error"') == 1
            assert b'"code":"invalid_api_key"' in told
        keyed.served.generator.asked[2].push("2 ", finish="stop")
        assert b"error" not in await clients[2].read_until(b"[DONE]\n\n")
        for client in clients:
            await client.stream.aclose()


async def test_a_key_that_is_revoked_while_its_body_comes_gets_no_answer(tmp_path: Path) -> None:
    async with serve_keyed(tmp_path, has_lane=False) as keyed:
        key = await keyed.key()
        assert (await keyed.ask("GET", "/v1/models", key)).status == 200
        async with await keyed.served.connect() as client:
            sent = request("POST", CHATS, key, CHAT)
            await client.send(sent[:-5])
            await trio.testing.wait_all_tasks_blocked(0.01)
            await keyed.keeper.revoke(key.id, 5, "lost")
            await client.send(sent[-5:])
            told = await client.read_answer()
            assert (told.status, told.error["code"]) == (401, "invalid_api_key")


@FACES
async def test_a_user_ends_its_own_requests_and_an_operator_any(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        owner, other = await keyed.key(), await keyed.key()
        operator = await keyed.key("operator")
        for number, (who, is_ended) in enumerate([(other, False), (owner, True), (operator, True)]):
            async with await keyed.served.connect() as client:
                await client.send(request("POST", CHATS, owner, STREAM, x_correlation_id="job"))
                asked = (await keyed.served.generator.wait_asked(number + 1))[number]
                told = await keyed.ask("DELETE", "/v1/requests/job", who)
                assert json.loads(told.body)["cancelled"] is is_ended
                assert (asked.cancelled is not None) is is_ended
            await trio.testing.wait_all_tasks_blocked(0.01)


@FACES
async def test_x_api_key_is_not_taken(tmp_path: Path, has_lane: bool) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        key = await keyed.key("admin")
        for credential in (None, key):
            told = await keyed.ask("GET", "/v1/models", credential, x_api_key=key.text)
            assert (told.status, told.error["code"]) == (401, "invalid_api_key")
            assert key.text not in str(told)


@FACES
async def test_the_audit_log_names_who_asked(tmp_path: Path, has_lane: bool) -> None:
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane) as keyed:
        await keyed.ask("POST", CHATS, None, CHAT)
        key = await keyed.key()
        await keyed.ask("POST", CHATS, key, CHAT)
        await trio.testing.wait_all_tasks_blocked(0.01)
        actors = [a for a, _, details in keyed.stand.audit.heard if details.event == "request.end"]
        assert actors == ["anonymous", f"key:{key.id}"]
        [success] = keyed.stand.audit.of("auth.success")
        assert (success.key, success.route) == (key.id, CHATS)
        assert key.text.split("_")[2] not in repr(keyed.stand.audit.heard)
        assert key.text.split("_")[2] not in repr(keyed.served.log.lines)


async def preflight(keyed: Keyed, origin: str) -> Any:
    return await keyed.ask(
        "OPTIONS", CHATS, origin=origin, access_control_request_method="POST",
        access_control_request_headers="authorization, content-type",
    )  # fmt: skip


@FACES
async def test_pages_of_listed_origins_may_call_and_no_others(
    tmp_path: Path, has_lane: bool
) -> None:
    config = ServerConfig(allowed_origins=("https://chat.example",))
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane, config=config) as keyed:
        key, page = await keyed.key(), "https://chat.example"
        told = await preflight(keyed, page)
        assert told.status == 204
        assert told.headers["access-control-allow-origin"] == page
        assert "authorization" in told.headers["access-control-allow-headers"]
        assert told.headers["vary"] == "origin"
        told = await keyed.ask("POST", CHATS, key, CHAT, origin=page)
        assert told.status == 200
        assert told.headers["access-control-allow-origin"] == page
        told = await keyed.ask("POST", CHATS, None, CHAT, origin=page)
        assert told.status == 401, "an origin is no credential"
        assert told.headers["access-control-allow-origin"] == page
        for other in ("https://evil.example", "https://chat.example.evil", "null", f"{page}/"):
            for told in (
                await preflight(keyed, other),
                await keyed.ask("POST", CHATS, key, CHAT, origin=other),
            ):
                assert (told.status, told.error["code"]) == (403, "forbidden_origin")
                assert not any(name.startswith("access-control") for name in told.headers)
        told = await keyed.ask("OPTIONS", CHATS, origin=page)
        assert told.status == 401, "what is no preflight wants a key"


@FACES
async def test_with_keys_every_host_name_will_do_unless_some_are_listed(
    tmp_path: Path, has_lane: bool
) -> None:
    def asking(host: str, key: Any) -> bytes:
        sent = request("GET", "/v1/models", key)
        return sent.replace(b"Host: localhost", f"Host: {host}".encode())

    for hosts, status in (((), 200), (("box.example",), 403)):
        folder = tmp_path / str(status)
        config = ServerConfig(allowed_hosts=hosts)
        async with serve_keyed(folder, has_lane=has_lane, config=config) as keyed:
            key = await keyed.key()
            async with await keyed.served.connect() as client:
                for host, expected in (("other.example:80", status), ("box.example", 200)):
                    await client.send(asking(host, key))
                    assert (await client.read_answer()).status == expected
                await client.send(asking("a/b", key))
                assert (await client.read_answer()).status in (400, 403)


@FACES
async def test_workers_are_told_apart_whose_requests_are_whose(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane) as keyed:
        mine, other = await keyed.key(), await keyed.key()
        for key in (mine, other, mine):
            assert (await keyed.ask("POST", CHATS, key, {**CHAT, "n": 2})).status == 200
        salts = [asked.cache_salt for asked in keyed.served.generator.asked]
        assert salts == [salts[0]] * 2 + [salts[2]] * 2 + [salts[0]] * 2
        assert b"" != salts[0] != salts[2] != b""
