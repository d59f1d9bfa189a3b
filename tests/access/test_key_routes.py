"""``/v1/rbee/keys`` and ``/v1/auth/permission``: what they do, record and refuse."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rbee.audit.events import Details
from rbee.errors import AuditError, RequestError, StoreError
from rbee.rate_limits import Limits, Priority
from rbee.supervisor.access.api_key import id_of
from rbee.supervisor.api.key_body import read_key_order, read_rotation
from rbee.supervisor.api.openapi import answers
from tests.access.keys import NOW_UNIX_S
from tests.access.served import Keyed, serve_keyed

KEYS = "/v1/rbee/keys"
WHOLE = {
    "role": "operator", "name": "night shift", "models": ["bee-tiny", "bee-tiny", "org/large"],
    "expires": "2031-01-01T00:00:00+01:00", "limits": {"requests_per_minute": 5, "priority": "low"},
}  # fmt: skip


async def test_a_key_is_made_shown_once_and_good_at_once(tmp_path: Path) -> None:
    async with serve_keyed(tmp_path) as keyed:
        admin = await keyed.key("admin")
        told = await keyed.ask("POST", KEYS, admin, WHOLE)
        assert told.status == 201
        made = msgspec.json.decode(told.body, type=answers.NewKey)
        assert id_of(made.key) == made.id
        assert (made.role, made.name) == ("operator", "night shift")
        assert made.models == ("bee-tiny", "org/large")
        assert (made.expires, made.created) == ("2030-12-31T23:00:00Z", "2030-03-17T17:46:40Z")
        assert made.limits == Limits(requests_per_minute=5, priority=Priority.LOW)
        told = await keyed.ask("GET", "/v1/auth/permission", f"Bearer {made.key}")
        permission = msgspec.json.decode(told.body, type=answers.Permission)
        assert (permission.actor, permission.role) == (f"key:{made.id}", "operator")
        assert permission.models == ("bee-tiny", "org/large")
        assert "GET /v1/rbee/crashes" in permission.rights
        assert f"POST {KEYS}" not in permission.rights
        listing = await keyed.ask("GET", KEYS, admin)
        listed = msgspec.json.decode(listing.body, type=answers.Keys)
        assert [each.id for each in listed.keys] == [admin.id, made.id]
        assert made.key.encode() not in listing.body
        assert b"argon2" not in listing.body
        [record] = keyed.stand.audit.of("key.created")
        assert (record.key, record.role) == (made.id, "operator")
        assert record.fingerprint == made.fingerprint
        assert keyed.stand.audit.heard[-1][0] in {f"key:{admin.id}", f"key:{made.id}"}


async def test_a_revoked_key_opens_nothing_at_once_and_revoking_again_changes_nothing(
    tmp_path: Path,
) -> None:
    async with serve_keyed(tmp_path) as keyed:
        admin, victim = await keyed.key("admin"), await keyed.key()
        assert (await keyed.ask("GET", "/v1/models", victim)).status == 200
        for _ in range(2):
            told = await keyed.ask("DELETE", f"{KEYS}/{victim.id}", admin)
            assert msgspec.json.decode(told.body, type=answers.RevokedKey).revoked
        told = await keyed.ask("GET", "/v1/models", victim)
        assert (told.status, told.error["message"]) == (401, "the API key was revoked")
        [record] = keyed.stand.audit.of("key.revoked")
        assert (record.key, record.reason) == (victim.id, "on demand")


async def test_a_rotated_key_has_the_same_rights_and_the_old_one_its_grace(tmp_path: Path) -> None:
    async with serve_keyed(tmp_path) as keyed:
        admin = await keyed.key("admin")
        old = await keyed.key("viewer", models=("bee-tiny",), name="page")
        told = await keyed.ask("POST", f"{KEYS}/{old.id}/rotate", admin, {"grace_s": 60})
        assert told.status == 201
        new = msgspec.json.decode(told.body, type=answers.NewKey)
        assert (new.role, new.models, new.name) == ("viewer", ("bee-tiny",), "page")
        assert (await keyed.ask("GET", "/v1/models", old)).status == 200
        assert (await keyed.ask("GET", "/v1/models", f"Bearer {new.key}")).status == 200
        keyed.stand.now_unix_s += 60
        assert (await keyed.ask("GET", "/v1/models", old)).status == 401
        assert (await keyed.ask("GET", "/v1/models", f"Bearer {new.key}")).status == 200
        [retired] = keyed.stand.audit.of("key.revoked")
        assert (retired.key, retired.reason) == (old.id, f"rotated to {new.id}; good for 60 s more")
        told = await keyed.ask("POST", f"{KEYS}/{new.id}/rotate", admin)
        assert told.status == 201, "a body is not needed"
        told = await keyed.ask("GET", "/v1/models", f"Bearer {new.key}")
        assert told.status == 401, "without grace the old one is good for nothing at once"
        revoked = await keyed.key(revoked_s=5)
        told = await keyed.ask("POST", f"{KEYS}/{revoked.id}/rotate", admin)
        assert (told.status, told.error["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "abcdefgh"), ("POST", "abcdefgh/rotate"), ("DELETE", "x"), ("DELETE", "%2e%2e")],
)
async def test_a_key_that_is_not_there_is_not_found(tmp_path: Path, method: str, path: str) -> None:
    async with serve_keyed(tmp_path) as keyed:
        admin = await keyed.key("admin")
        told = await keyed.ask(method, f"{KEYS}/{path}", admin)
        assert (told.status, told.error["code"]) == (404, "key_not_found")


async def test_the_first_key_is_not_made_over_the_wire(tmp_path: Path) -> None:
    async with serve_keyed(tmp_path) as keyed:
        told = await keyed.ask("POST", KEYS, None, {"role": "admin"})
        assert (told.status, told.error["code"]) == (403, "permission_denied")
        assert "rbee keys create" in told.error["message"]
        assert keyed.keeper.rows() == []
        assert (await keyed.ask("GET", KEYS)).status == 200


async def test_what_cannot_be_recorded_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_keyed(tmp_path) as keyed:
        admin, other = await keyed.key("admin"), await keyed.key()

        async def full(details: Details, **_: Any) -> None:
            raise AuditError("the disk is full")

        monkeypatch.setattr(keyed.stand.audit, "record_durably", full)
        for told in await every_change(keyed, admin, other):
            assert (told.status, told.error["code"]) == (503, "audit_unavailable")
        assert len(keyed.keeper.rows()) == 2
        assert (await keyed.ask("GET", "/v1/models", other)).status == 200


async def test_what_the_store_does_not_take_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_keyed(tmp_path) as keyed:
        admin, other = await keyed.key("admin"), await keyed.key()

        async def refuse(*_: object, **__: object) -> None:
            raise StoreError("the store /secret/path is locked")

        for name in ("add", "replace", "revoke"):
            monkeypatch.setattr(keyed.keeper, name, refuse)
        for told in await every_change(keyed, admin, other):
            assert (told.status, told.error["code"]) == (503, "store_unavailable")
            assert "/secret" not in told.error["message"]


async def test_more_keys_than_there_may_be_are_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.store.keys.KEYS_MAX", 1)
    async with serve_keyed(tmp_path) as keyed:
        admin = await keyed.key("admin")
        told = await keyed.ask("POST", KEYS, admin, {"role": "user"})
        assert (told.status, told.error["code"]) == (400, "invalid_request")
        assert "as many as there may be" in told.error["message"]


async def test_without_a_thread_nothing_is_changed_and_the_next_try_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_keyed(tmp_path) as keyed:
        admin = await keyed.key("admin")
        assert (await keyed.ask("GET", KEYS, admin)).status == 200

        async def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", refuse)
            told = await keyed.ask("POST", KEYS, admin, {"role": "user"})
        assert (told.status, told.error["code"]) == (503, "store_unavailable")
        assert (await keyed.ask("POST", KEYS, admin, {"role": "user"})).status == 201


async def every_change(keyed: Keyed, admin: Any, other: Any) -> list[Any]:
    return [
        await keyed.ask("POST", KEYS, admin, {"role": "user"}),
        await keyed.ask("DELETE", f"{KEYS}/{other.id}", admin),
        await keyed.ask("POST", f"{KEYS}/{other.id}/rotate", admin),
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"role"}),
        ({"role": "king"}, {"role"}),
        ({"role": "user", "name": "a\u202eb"}, {"name"}),
        ({"role": "user", "name": "a\nb"}, {"name"}),
        ({"role": "user", "name": "x" * 129}, {"name"}),
        ({"role": "user", "name": 5}, {"name"}),
        ({"role": "user", "models": "bee-tiny"}, {"models"}),
        ({"role": "user", "models": ["../etc"]}, {"models"}),
        ({"role": "user", "models": ["a"] * 65}, {"models"}),
        ({"role": "user", "expires": "tomorrow"}, {"expires"}),
        ({"role": "user", "expires": "2020-01-01T00:00:00Z"}, {"expires"}),
        ({"role": "user", "expires": 5, "expires_in_s": 0}, {"expires", "expires_in_s"}),
        ({"role": "user", "expires": "2031-01-01T00:00:00Z", "expires_in_s": 5}, {"expires_in_s"}),
        ({"role": "user", "limits": []}, {"limits"}),
        ({"role": "user", "limits": {"requests_per_minute": 0}}, {"limits.requests_per_minute"}),
        ({"role": "user", "limits": {"tokens_per_minute": True}}, {"limits.tokens_per_minute"}),
        ({"role": "user", "limits": {"gpus": 1}}, {"limits.gpus"}),
        ({"role": "user", "limits": {"priority": "urgent"}}, {"limits.priority"}),
        ({"role": "user", "limits": {"priority": []}}, {"limits.priority"}),
        ({"role": "user", "secret": "x"}, {"secret"}),
    ],
)
def test_what_a_key_cannot_be_is_told_by_field(body: Any, fields: set[str]) -> None:
    with pytest.raises(RequestError) as caught:
        read_key_order(json.dumps(body).encode(), NOW_UNIX_S)
    assert {each.field for each in caught.value.details} == fields


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.dictionaries(
        st.sampled_from(["role", "name", "models", "expires", "expires_in_s", "limits", "grace_s"]),
        inner, max_size=4,
    ) | st.lists(inner, max_size=3),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_an_order_or_an_error(raw: bytes) -> None:
    for read in (lambda: read_key_order(raw, NOW_UNIX_S), lambda: read_rotation(raw)):
        try:
            read()
        except RequestError:
            continue
