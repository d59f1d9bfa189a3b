"""Every route of the face's own table, with every role and every kind of key, on both faces."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from rbee.supervisor.access.api_key import NewKey, new_key
from rbee.supervisor.access.principal import Role
from rbee.supervisor.access.rights import LEAST_ROLES, OPEN_PATHS
from rbee.supervisor.api.routing import ByMethod
from tests.access.keys import NOW_UNIX_S, forged
from tests.access.served import Keyed, serve_keyed
from tests.api.face import CHAT, COMPLETION, CRASH, every_route
from tests.api.served import count_to_five

FACES: Final = pytest.mark.parametrize("has_lane", [True, False], ids=["lane", "hypercorn"])
FILLED: Final = {
    "{slot}": "bee-tiny-0", "{crash}": CRASH.id, "{name:path}": "bee-tiny", "{id}": "abcdefgh",
}  # fmt: skip
BODIES: Final[dict[str, Any]] = {
    "/v1/chat/completions": CHAT, "/v1/completions": COMPLETION, "/v1/rbee/keys": {"role": "user"},
}  # fmt: skip


def calls() -> Iterator[tuple[str, str, str]]:
    """Method, path as in the table, and path as it is asked for, of everything there is."""
    for route in every_route():
        assert isinstance(route.app, ByMethod)
        path = route.path
        for name, value in FILLED.items():
            path = path.replace(name, value)
        for method in route.app.allow.split(", "):
            yield method, route.path, path


def body_for(method: str, path: str) -> object:
    return BODIES.get(path) if method == "POST" else None


async def bad_credentials(keyed: Keyed) -> dict[str, NewKey | str | None]:
    good = await keyed.key("admin")
    return {
        "no": None,
        "malformed": good.text,
        "of another scheme": f"Basic {good.text}",
        "twice": f"Bearer {good.text}\r\nAuthorization: Bearer {good.text}",
        "mistyped": good.text[:-1] + ("a" if good.text[-1] != "a" else "b"),
        "no key at all": "Bearer none",
        "unknown": new_key(),
        "wrong": forged(good.id),
        "expired": await keyed.key("admin", expires_s=NOW_UNIX_S),
        "revoked": await keyed.key("admin", revoked_s=NOW_UNIX_S - 5),
    }


@FACES
async def test_without_a_good_key_no_route_answers_but_the_probes(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, has_lane=has_lane) as keyed:
        credentials = await bad_credentials(keyed)
        elsewhere = [("GET", "", "/"), ("GET", "", "/v1/none"), ("PUT", "", "/v1/models")]
        for method, route, path in [*calls(), *elsewhere]:
            for kind, credential in credentials.items():
                told = await keyed.ask(method, path, credential, body_for(method, path))
                what = f"{method} {path} with {kind} key: {told.status}"
                if route in OPEN_PATHS:
                    assert told.status in (200, 204), what
                    continue
                assert told.status == 401, what
                assert told.headers["www-authenticate"] == "Bearer", what
                if method != "HEAD":
                    assert told.error["code"] == "invalid_api_key", what
                    assert told.error["type"] == "authentication_error", what
        assert keyed.served.generator.asked == [], "not one got through"
        assert keyed.served.errors == []


@FACES
async def test_each_role_may_do_what_the_table_says_and_nothing_else(
    tmp_path: Path, has_lane: bool
) -> None:
    async with serve_keyed(tmp_path, count_to_five, has_lane=has_lane) as keyed:
        for role in Role:
            key = await keyed.key(role)
            for method, route, path in calls():
                told = await keyed.ask(method, path, key, body_for(method, path))
                what = f"{method} {path} as {role}: {told.status}"
                least = LEAST_ROLES.get(("GET" if method == "HEAD" else method, route))
                is_open = route in OPEN_PATHS or method == "OPTIONS"
                if is_open or (least is not None and role.includes(least)):
                    assert told.status in (200, 201, 202, 204, 404), what
                else:
                    assert told.status == 403, what
                    if method != "HEAD":
                        assert told.error["code"] == "permission_denied", what
            assert (await keyed.ask("GET", "/v1/none", key)).status == 404
            assert (await keyed.ask("PUT", "/v1/models", key)).status == 405
        assert keyed.served.errors == []
