"""The steps of `specs/300-authentication.feature`, most of which use one and the same server."""

import atexit
import json
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from rbee.store import FILE_NAME
from rbee.supervisor.access.api_key import id_of, new_key
from tests.access.keys import forged
from tests.e2e.server import Server, synthetic_config, wait_until
from tests.e2e.stream import Stream
from tests.specs.access_room import (
    COMPLETIONS,
    KEYED,
    KEYS,
    Keyed,
    ask,
    bearer,
    begin,
    command,
    generate,
    head_of,
    keep,
    keyed,
    made,
    with_keys,
)
from tests.specs.runner import Steps
from tests.specs.shared import shared_server
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step

MODELS: Final = "/v1/models"
PATIENCE_S: Final = 3.0  # for what takes half a second where nothing else runs


_ROOM: dict[str, Keyed] = {}  # of the shared server


# --- given


@step(r"a server without a key")
def given_keyless(world: World) -> None:
    room = KEYED[world] = Keyed(world.directory / "state")
    begin(world, head_of(room.state_dir))


@step(r"a server with keys")
def given_keyed(world: World) -> None:
    if "shared" not in _ROOM:
        folder = Path(tempfile.mkdtemp(prefix="rbee-spec-keys-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _ROOM["shared"] = with_keys(folder)
    KEYED[world] = _ROOM["shared"]
    world.borrow(shared_server(head_of(keyed(world).state_dir)))


@step(r"a server with keys of its own")
def given_own(world: World) -> None:
    room = KEYED[world] = with_keys(world.directory / "state")
    begin(world, head_of(room.state_dir))
    assert ask(world, "GET", MODELS, room.good).status_code == 200


@step(r"a stream of a key, and one of another")
def given_streams(world: World) -> None:
    room = keyed(world)
    room.good = made(world, expires_in_s=2)
    body = {"model": "synthetic", "prompt": "x", "max_tokens": 4000}
    for key in (room.good, made(world)):
        stream = Stream(world.server.url, COMPLETIONS, body, headers=bearer(key))
        world.streams.append(stream)
        assert stream.has_begun.wait(10)


# --- when


@step(r"the models are asked for without a key")
def when_models(world: World) -> None:
    ask(world, "GET", MODELS)


@step(r"the operator makes a user key by command")
def when_command(world: World) -> None:
    room = keyed(world)
    room.good = command(
        world, "keys", "create", "--role", "user", "--state-dir", str(room.state_dir)
    )
    assert id_of(room.good)


@step(r"an admin key is asked for over the wire")
def when_wire(world: World) -> None:
    ask(world, "POST", KEYS, json={"role": "admin"})


@step(r"the operator runs init")
def when_init(world: World) -> None:
    command(world, "init", "--state-dir", str(keyed(world).state_dir))


@step(r'"(/health/\w+)" is asked for without a key')
def when_probe(world: World, path: str) -> None:
    ask(world, "GET", path)


_CREDENTIALS: Final = {
    "no key": lambda _room: {},
    "an empty header": lambda _room: {"Authorization": ""},
    "a key of another scheme": lambda room: {"Authorization": f"Basic {room.good}"},
    "a key without its scheme": lambda room: {"Authorization": room.good},
    "a key as x-api-key": lambda room: {"x-api-key": room.good},
    "a key that is cut off": lambda room: bearer(room.good[:-1]),
    "a key that nobody made": lambda _room: bearer(new_key().text),
    "another secret for a known id": lambda room: bearer(forged(str(id_of(room.good))).text),
    "an expired key": lambda room: bearer(room.expired),
    "a key in a header of another case": lambda room: {"authorization": f"bEARER  {room.good}"},
}


@step(r"the models are asked for with (an? key in the query|.+)")
def when_credential(world: World, credential: str) -> None:
    room = keyed(world)
    if credential == "a key in the query":
        world.try_("GET", f"{MODELS}?api_key={room.good}")
    else:
        world.try_("GET", MODELS, headers=_CREDENTIALS[credential](room))


@step(r"a key that was good is revoked by command")
def when_revoked(world: World) -> None:
    room = keyed(world)
    key = made(world)
    room.pids = _pids(world)
    assert ask(world, "GET", MODELS, key).status_code == 200
    arguments = ("revoke", str(id_of(key)), "--state-dir", str(room.state_dir))
    command(world, "keys", *arguments)
    room.before_s = time.monotonic()
    room.expired = key


@step(r"the first key (is revoked|expires)")
def when_first_ends(world: World, how: str) -> None:
    room = keyed(world)
    if how == "is revoked":
        path = f"{KEYS}/{id_of(room.good)}"
        assert ask(world, "DELETE", path, room.admin).status_code == 200


@step(r"a user key is rotated with a grace of an hour")
def when_rotated(world: World) -> None:
    room = keyed(world)
    room.good = made(world)
    path = f"{KEYS}/{id_of(room.good)}/rotate"
    answer = ask(world, "POST", path, room.admin, json={"grace_s": 3600})
    room.expired = answer.json()["key"]


_DEEDS: Final = {
    "see the workers": lambda world, key: ask(world, "GET", "/v1/rbee/workers", key),
    "generate": generate,
    "restart a worker": lambda world, key: ask(
        world, "POST", "/v1/rbee/workers/synthetic-0/restart", key
    ),
    "read crashes": lambda world, key: ask(world, "GET", "/v1/rbee/crashes", key),
    "list keys": lambda world, key: ask(world, "GET", KEYS, key),
    "scrape the metrics": lambda world, key: ask(world, "GET", "/metrics", key),
    "scrape the metrics with a query": lambda world, key: ask(world, "GET", "/metrics?x=1", key),
}


@step(r"an? (viewer|user|operator|admin) asks to (.+)")
def when_deed(world: World, role: str, deed: str) -> None:
    _DEEDS[deed](world, made(world, role))


@step(r"an admin makes a user key over the API")
def when_made(world: World) -> None:
    keyed(world).good = made(world)


@step(r"a key that is bound to another model asks for an answer")
def when_bound(world: World) -> None:
    generate(world, made(world, models=["another"]))


@step(r"a key with 1 request a minute asks twice")
def when_limited(world: World) -> None:
    key = made(world, limits={"requests_per_minute": 1})
    assert generate(world, key).status_code == 200
    generate(world, key)


@step(r"(\d+) keys that nobody made are tried")
def when_tried(world: World, count: str) -> None:
    world.tried.clear()
    for _ in range(int(count)):
        ask(world, "GET", MODELS, new_key().text)


@step(r"the server that wants keys is stopped and started again")
def when_again(world: World) -> None:
    world.server.stop()
    begin(world, head_of(keyed(world).state_dir))


@step(r"the store is broken while the server is down")
def when_broken(world: World) -> None:
    world.server.stop()
    path = keyed(world).state_dir / FILE_NAME
    path.write_bytes(b"\xff" * path.stat().st_size)
    begin(world, head_of(keyed(world).state_dir))


@step(r"a server is to listen for all with (no key|a key) and (consent|silence)")
def when_for_all(world: World, has: str, word: str) -> None:
    state_dir = world.directory / "state"
    if has == "a key":
        keep(state_dir)
    consent = "true" if word == "consent" else "false"
    config = synthetic_config(head=head_of(state_dir, f"allow_plaintext = {consent}"))
    world.second = Server(world.directory, config, bind="0.0.0.0:0")
    world.second.process.wait(30)


# --- then


@step(r"the answer has the status (\d+)")
def then_status(world: World, status: str) -> None:
    assert world.answer is not None
    assert world.answer.status_code == int(status), world.answer.text


@step(r'the log warns once of "(\w+)"')
def then_warns(world: World, event: str) -> None:
    assert [each["level"] for each in world.server.events if each["event"] == event] == ["warning"]


@step(r'the log says "(\w+)"')
def then_says(world: World, event: str) -> None:
    assert event in [each["event"] for each in world.server.events]


@step(r"without a key the models are refused within 1 second")
def then_refused(world: World) -> None:
    wait_until(
        lambda: ask(world, "GET", MODELS).status_code == 401, PATIENCE_S, "keys are asked for"
    )


@step(r"with that key the models are listed")
def then_listed(world: World) -> None:
    answer = ask(world, "GET", MODELS, keyed(world).good)
    assert [each["id"] for each in answer.json()["data"]] == ["synthetic"]


@step(r"the file of the admin key is closed to all others")
def then_closed(world: World) -> None:
    path = keyed(world).state_dir / "admin.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keyed(world).admin = path.read_text("ascii").strip()


@step(r"the operator sees the workers by command")
def then_command(world: World) -> None:
    path = keyed(world).state_dir / "admin.key"
    bind = world.server.url.removeprefix("http://")
    text = f'[server]\nbind = "{bind}"\nstate_dir = "{path.parent}"\n'
    (world.directory / "rbee.toml").write_text(text)
    assert "synthetic-0" in command(world, "workers", "list")


@step(r"the answer says its status and nothing else")
def then_only_status(world: World) -> None:
    assert world.answer is not None
    assert world.answer.json() == {"status": "ok"}


@step(r"the answer asks for a bearer key, and does not repeat what was sent")
def then_asks(world: World) -> None:
    assert world.answer is not None
    assert world.answer.headers["www-authenticate"] == "Bearer"
    told = world.answer.text + str(world.answer.headers)
    for key in (keyed(world).good, keyed(world).expired):
        assert key.split("_")[2][:20] not in told


@step(r"that key is refused within 1 second")
def then_key_refused(world: World) -> None:
    room = keyed(world)
    key = room.expired
    wait_until(
        lambda: ask(world, "GET", MODELS, key).status_code == 401, PATIENCE_S, "it is revoked"
    )
    assert world.answer is not None
    assert world.answer.json()["error"]["message"] == "the API key was revoked"


def _pids(world: World) -> list[int]:
    workers = ask(world, "GET", "/v1/rbee/workers", keyed(world).admin).json()["workers"]
    return [worker["pid"] for worker in workers]


@step(r"the workers are those that there were")
def then_same_workers(world: World) -> None:
    assert _pids(world) == keyed(world).pids


@step(r'the first stream ends with one error "(\w+)" within (\d+) seconds')
def then_stream_ends(world: World, code: str, _seconds: str) -> None:
    stream = world.streams[0]
    assert stream.is_over.wait(4), "it goes on"
    assert [error["code"] for error in stream.errors] == [code]
    assert stream.events[-1] == "[DONE]"


@step(r"the second stream goes on")
def then_goes_on(world: World) -> None:
    stream = world.streams[1]
    count = len(stream.events)
    wait_until(lambda: len(stream.events) > count, 5, "it goes on")
    assert stream.errors == []


@step(r"both keys are good, and do the same")
def then_both(world: World) -> None:
    for key in (keyed(world).good, keyed(world).expired):
        assert generate(world, key).status_code == 200
        assert ask(world, "GET", KEYS, key).status_code == 403


@step(r"no listing shows that key")
def then_unlisted(world: World) -> None:
    room = keyed(world)
    answer = ask(world, "GET", KEYS, room.admin)
    assert str(id_of(room.good)) in answer.text
    assert room.good.split("_")[2] not in answer.text
    assert "argon2" not in answer.text


@step(r"the answer tells when to come back, and that 0 requests are left")
def then_left(world: World) -> None:
    assert world.answer is not None
    assert 1 <= int(world.answer.headers["retry-after"]) <= 60
    assert world.answer.headers["x-ratelimit-limit-requests"] == "1"
    assert world.answer.headers["x-ratelimit-remaining-requests"] == "0"


@step(r"some are told to come back later, and none is let in")
def then_throttled(world: World) -> None:
    statuses = [answer.status_code for answer in world.tried]
    assert set(statuses) == {401, 429}
    assert all(int(a.headers["retry-after"]) >= 1 for a in world.tried if a.status_code == 429)


@step(r"a key that was good before is served at once")
def then_good(world: World) -> None:
    assert generate(world, keyed(world).good).status_code == 200


@step(r"the audit log tells of them in a few lines")
def then_few_lines(world: World) -> None:
    wait_until(lambda: "auth.failure" in _audit(world), 5, "it is written")
    assert _audit(world).count('"event":"auth.failure"') <= 2


def _audit(world: World) -> str:
    folder = keyed(world).state_dir / "audit"
    return "".join(path.read_text("utf-8") for path in folder.glob("*.jsonl"))


@step(r"no key stands in the log, the audit log or the store")
def then_nowhere(world: World) -> None:
    room = keyed(world)
    secrets = [key.split("_")[2][:20] for key in (room.admin, room.good, room.expired)]
    wait_until(lambda: "auth.success" in _audit(world), 5, "it is written")
    written = json.dumps(world.server.events) + _audit(world)
    for path in room.state_dir.glob(f"{FILE_NAME}*"):
        written += path.read_bytes().decode("latin-1")
    for secret in secrets:
        assert secret not in written
