"""The steps of `specs/370-jwt-and-roles.feature`: a real server, an issuer of the test's own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import httpx2

from rbee.audit.place import place_in
from tests.access.jwt.issuer import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    claims,
    jwk,
    part,
    sign,
    write_key_set,
)
from tests.access.jwt.site import Site, open_site
from tests.audit.log import entries
from tests.e2e.server import synthetic_config, wait_until
from tests.specs.runner import Steps
from tests.specs.world import World, chat_body

STEPS = Steps()
step = STEPS.step

REVOKED_JTI = "the-one-that-is-revoked"
ALL_KEYS = (jwk(RSA_KEY, kid="RS256"), jwk(EC_KEY, kid="ES256"), jwk(ED_KEY, kid="EdDSA"))


# --- a server


def configure(world: World, jwt: str, server: str = "") -> None:
    head = (
        f'[server]\nstate_dir = "{world.directory / "state"}"\n{server}\n'
        f'[jwt]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nleeway_s = 0\n{jwt}\n'
    )
    world._config = synthetic_config(head=head)


def start(world: World) -> None:
    world.start(until_ready=False)
    world.server.wait_event("serving")


def with_file(world: World, jwt: str = "", server: str = "") -> None:
    path = world.directory / "keys.json"
    write_key_set(path, *ALL_KEYS)
    configure(world, f'jwks_file = "{path}"\n{jwt}', server)
    start(world)


@step(r"a server that takes JWTs of an issuer, with the lane (on|off)")
def given_server(world: World, lane: str) -> None:
    with_file(world, server=f"lane = {'true' if lane == 'on' else 'false'}")


@step(r"a server that takes JWTs of an issuer, with models from a claim")
def given_models(world: World) -> None:
    with_file(world, 'models_claim = "/rbee/models"')


@step(r"a server that fetches the issuer's keys from an address of a network that is (.*allowed)")
def given_address(world: World, allowed: str) -> None:
    site = world.exits.enter_context(open_site(world.directory))
    world.site = site
    networks = '["127.0.0.0/8", "::1/128"]' if allowed == "allowed" else "[]"
    configure(
        world,
        f'jwks_url = "{site.url}"\njwks_ca_file = "{site.certificate_file}"\n'
        f"jwks_networks = {networks}",
    )
    start(world)


@step(r"a server that limits users who come with a JWT, with the lane (on|off)")
def given_limits(world: World, lane: str) -> None:
    limits = "role_limits = { operator = {} }\nlimits = { requests_per_minute = 1 }"
    with_file(world, limits, f"lane = {'true' if lane == 'on' else 'false'}")


@step(r"the address was not asked")
def then_not_asked(world: World) -> None:
    assert isinstance(world.site, Site)
    assert world.site.asked == 0
    assert world.answer is not None
    assert world.answer.json()["error"]["code"] == "jwt_unavailable"
    assert int(world.answer.headers["retry-after"]) >= 1


@step(r"the server is started again")
def when_restarted(world: World) -> None:
    assert world.server.stop() == 0
    start(world)


# --- who comes


@step(r"somebody comes with a JWT for the role \"(\w+)\"")
def when_role(world: World, role: str) -> None:
    world.bearer = sign(claims(roles=[role], jti=f"for-{role}"))


@step(r"\"(\w+)\" comes with a(?:nother)? JWT for the role \"(\w+)\"")
def when_subject(world: World, subject: str, role: str) -> None:
    world.bearer = sign(claims(sub=subject, roles=[role], jti=f"for-{subject}-{time.time_ns()}"))


@step(r"somebody comes with a JWT for the model \"(\w+)\"")
def when_model(world: World, model: str) -> None:
    world.bearer = sign(claims(rbee={"models": [model]}))


@step(r"somebody comes with a JWT that names no model")
def when_no_model(world: World) -> None:
    world.bearer = sign(claims(rbee={"models": []}))


@step(r"somebody comes without a credential")
def when_nobody(world: World) -> None:
    world.bearer = ""


@step(r"an operator makes an API key for the role \"(\w+)\" and uses it")
def when_key(world: World, role: str) -> None:
    made = json.loads(command(world, "keys", "create", "--role", role, "--json"))
    world.bearer = made["key"]
    wait_until(lambda: get(world, "/v1/models").status_code == 200, 10, "the key is known")


def get(world: World, path: str, bearer: str | None = None) -> httpx2.Response:
    return httpx2.get(world.server.url + path, headers=shown(world, bearer), timeout=10)


def post(world: World, path: str, body: Any, bearer: str | None = None) -> httpx2.Response:
    url = world.server.url + path
    return httpx2.post(url, json=body, headers=shown(world, bearer), timeout=30)


def shown(world: World, bearer: str | None) -> dict[str, str]:
    credential = world.bearer if bearer is None else bearer
    return {"authorization": f"Bearer {credential}"} if credential else {}


def command(world: World, *arguments: str) -> str:
    """Run a command, as an operator does beside the running server."""
    words = [sys.executable, "-m", "rbee", *arguments, "--config", world.directory / "rbee.toml"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- what they are told


def expect(world: World, answer: httpx2.Response, status: int) -> None:
    world.answer = answer
    assert answer.status_code == status, answer.text
    assert ("www-authenticate" in answer.headers) == (status == 401)


@step(r"GET (/\S+) is answered with (\d+)")
def then_get(world: World, path: str, status: str) -> None:
    expect(world, get(world, path), int(status))


@step(r"a chat is answered with (\d+)")
def then_chat(world: World, status: str) -> None:
    body = {**chat_body("count"), "max_tokens": 3}
    expect(world, post(world, "/v1/chat/completions", body), int(status))


@step(r"restarting a worker is answered with (\d+)")
def then_restart(world: World, status: str) -> None:
    path = "/v1/rbee/workers/synthetic-0/restart"
    expect(world, httpx2.post(world.server.url + path, headers=shown(world, None)), int(status))


@step(r"no model is listed")
def then_no_model(world: World) -> None:
    assert get(world, "/v1/models").json()["data"] == []


@step(r"the answer tells that 0 requests are left")
def then_none_left(world: World) -> None:
    assert world.answer is not None
    assert world.answer.headers["x-ratelimit-limit-requests"] == "1"
    assert world.answer.headers["x-ratelimit-remaining-requests"] == "0"
    is_refused = world.answer.status_code == 429
    assert is_refused == ("retry-after" in world.answer.headers)
    if is_refused:
        error = world.answer.json()["error"]
        assert error["code"] == "rate_limited"
        assert "this subject's limit of 1 requests per minute" in error["message"]


@step(r"the answer tells of no limit")
def then_no_limit(world: World) -> None:
    assert world.answer is not None
    assert not [name for name in world.answer.headers if name.startswith("x-ratelimit")]


# --- forgers


def forged() -> Sequence[str]:
    """One of each kind; what is wrong with it is what its header or its claims say."""
    good = claims(roles=["admin"])
    head, payload, signature = sign(good, "RS256").split(".")
    return [
        f"{part({'alg': 'none', 'kid': 'RS256'})}.{payload}.",
        f"{part({'alg': 'HS256', 'kid': 'RS256'})}.{payload}.{part(bytes(32))}",
        f"{part({'alg': 'RS256', 'kid': 'RS256', 'jku': 'https://x.example'})}.{payload}.{signature}",
        f"{part({'alg': 'RS256', 'kid': 'RS256', 'crit': ['exp']})}.{payload}.{signature}",
        f"{head}.{part({**good, 'sub': 'eve'})}.{signature}",
        sign(good, "RS256", key=OTHER_RSA_KEY),
        sign(good, "RS256", kid="../../dev/null"),
        "eyJhbGciOiJub25lIn0.e30.x" + "A" * 8_200,
    ]


def foreign() -> Sequence[str]:
    """Signed by the issuer, and not to be taken all the same."""
    now_s = time.time()
    return [
        sign(claims(aud="another")),
        sign(claims(iss="https://evil.example")),
        sign(claims(exp=now_s - 5, iat=now_s - 60, nbf=now_s - 60)),
        sign(claims(nbf=now_s + 500)),
        sign(claims(jti=None)),
        sign(claims(roles=["root"])),
    ]


@step(r"somebody comes with JWTs that are not good")
def when_bad(world: World) -> None:
    world.bearers = [*foreign(), *forged()]


@step(r"each of them is answered with 401 on a hot route and on a slow one")
def then_all_refused(world: World) -> None:
    for each in world.bearers:
        answer = get(world, "/v1/models", each)
        assert answer.status_code in {401, 429}, answer.text
        assert answer.status_code == 401 or each not in foreign()
        slow = get(world, "/v1/rbee/workers", each)
        assert slow.status_code in {401, 429}, slow.text
        assert each not in answer.text + slow.text


@step(r"none of them is in the log")
def then_not_in_log(world: World) -> None:
    log = json.dumps(world.server.events)
    assert not any(each in log for each in world.bearers)


@step(r"(\d+) forged JWTs are tried")
def when_forged(world: World, count: str) -> None:
    for number in range(int(count)):
        text = sign(claims(jti=f"j-{number}"), key=ED_KEY, algorithm="EdDSA", kid="RS256")
        world.answer = get(world, "/v1/models", text)
        assert world.answer.status_code in {401, 429}


@step(r"the last of them was told to wait")
def then_waits(world: World) -> None:
    assert world.answer is not None
    assert world.answer.status_code == 429
    assert int(world.answer.headers["retry-after"]) >= 1


# --- revoked, expired


@step(r"a stream of somebody with a JWT(?: that expires in (\d+) seconds)?")
def given_stream(world: World, seconds: str | None) -> None:
    exp = None if seconds is None else {"exp": time.time() + int(seconds)}
    world.bearer = sign(claims(jti=REVOKED_JTI, **(exp or {})))
    body = {"model": "synthetic", "prompt": "count", "max_tokens": 4_000, "stream": True}
    client = world.exits.enter_context(httpx2.Client(timeout=30))
    answer = world.exits.enter_context(
        client.stream(
            "POST",
            world.server.url + "/v1/completions",
            json=body,
            headers=shown(world, None),
        )
    )
    assert answer.status_code == 200
    world.reading = answer.iter_lines()
    assert next(world.reading).startswith("data: ")


@step(r"an admin revokes that JWT over the API")
def when_revoked(world: World) -> None:
    admin = sign(claims(roles=["admin"], jti="admin"))
    answer = post(world, "/v1/rbee/revocations", {"jti": REVOKED_JTI}, admin)
    assert answer.status_code == 201, answer.text
    listed = get(world, "/v1/rbee/revocations", admin).json()["revocations"]
    assert listed == [answer.json()]


@step(r"an operator revokes that JWT by a command")
def when_revoked_by_command(world: World) -> None:
    command(world, "jwt", "revoke", REVOKED_JTI)


@step(r"the command lists it")
def then_listed(world: World) -> None:
    listed = json.loads(command(world, "jwt", "list", "--json"))["revocations"]
    assert [each["jti"] for each in listed] == [REVOKED_JTI]


@step(r"the stream ends with \"(\w+)\" and \[DONE\]")
def then_stream_ends(world: World, code: str) -> None:
    lines = [line for line in world.reading if line]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == code
    assert len(lines) < 3_000


@step(r"the audit log tells \"([\w.]+)\" and \"([\w.]+)\" of actors that are JWTs")
def then_audited(world: World, first: str, second: str) -> None:
    assert world.server.stop() == 0
    found = list(entries(place_in(world.directory / "state")))
    for name in (first, second):
        actors = [entry["actor"] for entry in found if entry["event"] == name]
        assert actors
        assert all(actor.startswith(f"jwt:{ISSUER}/") for actor in actors)
    assert "ada" not in json.dumps([entry["actor"] for entry in found])


# --- keys that change


@step(r"the issuer replaces its keys and the server is told by SIGHUP")
def when_replaced(world: World) -> None:
    write_key_set(world.directory / "keys.json", jwk(OTHER_RSA_KEY, kid="new"))
    world.server.signal(signal.SIGHUP)
    world.server.wait_event("jwt_keys_loaded", keys=1)


@step(r"a JWT of the new keys is answered with (\d+)")
def then_new(world: World, status: str) -> None:
    text = sign(claims(), "RS256", key=OTHER_RSA_KEY, kid="new")
    expect(world, get(world, "/v1/models", text), int(status))
