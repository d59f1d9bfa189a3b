"""``/v1/rbee/revocations``: what is taken, recorded first, and refused."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.audit import NO_AUDIT
from rbee.audit.events import JwtRevoked
from rbee.config import ServerConfig
from rbee.errors import AuditError, RequestError, StoreError
from rbee.supervisor.api.app import make_face
from rbee.supervisor.api.openapi import answers
from rbee.supervisor.api.revocation_body import read_revocation
from tests.api.face import Exchange, Face

PATH = "/v1/rbee/revocations"


class FakeRevocations:
    """Keeps what is revoked, unless the store fails."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.fails = False

    def listed(self) -> dict[str, int]:
        return dict(self.done)

    def kept_until_s(self, expires_s: int | None) -> int:
        return 2_000_000_000 if expires_s is None else expires_s

    def record_of(self, jti: str, expires_s: int) -> JwtRevoked:
        return JwtRevoked(issuer="i", jti=jti, expires=str(expires_s))

    async def revoke(self, jti: str, until_s: int) -> None:
        if self.fails:
            raise StoreError("the disk is full at /secret/path")
        self.done[jti] = until_s


class FakeAudit:
    state = NO_AUDIT.state

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails = False

    def record(self, *_: object, **__: object) -> None: ...

    async def record_durably(self, details: Any, **more: Any) -> None:
        if self.fails:
            raise AuditError("no room")
        self.told.append((details, more["actor"]))


class Stand:
    """The face, with revocations and an audit log of the test's own. Make it inside trio."""

    def __init__(self, *, takes_jwts: bool = True) -> None:
        self.revocations = FakeRevocations()
        self.audit = FakeAudit()
        self.face = Face()
        self.face.app = make_face(
            self.face.generator, self.face.operations, ServerConfig(), self.face.log,
            audit=self.audit, revocations=self.revocations if takes_jwts else None,
        ).app  # fmt: skip

    async def revoke(self, **body: object) -> Exchange:
        return await self.face.post(PATH, body)

    async def listed(self) -> Exchange:
        return await self.face.request("GET", PATH)


async def test_a_revocation_is_recorded_done_and_listed() -> None:
    stand = Stand()
    done = await stand.revoke(jti="j-2")
    assert done.status == 201
    made = msgspec.json.decode(done.body, type=answers.Revocation)
    assert (made.jti, made.expires) == ("j-2", "2033-05-18T03:33:20Z")
    assert (await stand.revoke(jti="j-1", expires="2030-01-01T00:00:00Z")).status == 201
    listed = msgspec.json.decode((await stand.listed()).body, type=answers.Revocations)
    assert [each.jti for each in listed.revocations] == ["j-1", "j-2"]
    assert [(details.jti, actor) for details, actor in stand.audit.told] == [
        ("j-2", "anonymous"), ("j-1", "anonymous")
    ]  # fmt: skip


async def test_what_cannot_be_recorded_is_not_done() -> None:
    stand = Stand()
    stand.audit.fails = True
    refused = await stand.revoke(jti="j-1")
    assert (refused.status, refused.error["code"]) == (503, "audit_unavailable")
    assert stand.revocations.done == {}


async def test_a_store_that_fails_is_told_without_its_path() -> None:
    stand = Stand()
    stand.revocations.fails = True
    refused = await stand.revoke(jti="j-1")
    assert (refused.status, refused.error["code"]) == (503, "store_unavailable")
    assert b"/secret" not in refused.body


async def test_where_no_jwts_are_taken_there_is_nothing_to_revoke() -> None:
    stand = Stand(takes_jwts=False)
    for answer in (await stand.revoke(jti="j-1"), await stand.listed()):
        assert (answer.status, answer.error["code"]) == (404, "not_found")
        assert "takes no JWTs" in answer.error["message"]


def test_a_body_is_read_and_all_that_is_wrong_is_told() -> None:
    body = b'{"jti": "a-1", "expires": "2030-01-01T00:00:00Z"}'
    assert read_revocation(body) == ("a-1", 1_893_456_000)
    assert read_revocation(b'{"jti": "a-1"}') == ("a-1", None)
    for raw, fields in [
        (b"{}", ["jti"]),
        (b'{"jti": ""}', ["jti"]),
        (b'{"jti": "a b", "expires": 5}', ["jti", "expires"]),
        (b'{"jti": "a", "until": 1}', ["until"]),
        (b'{"jti": 7, "expires": "tomorrow"}', ["jti", "expires"]),
    ]:
        with pytest.raises(RequestError) as caught:
            read_revocation(raw)
        told = [each.field for each in caught.value.details] or [caught.value.param]
        assert sorted(map(str, told)) == sorted(fields)


@given(st.text(max_size=300))
def test_any_text_is_a_jti_or_an_error(text: str) -> None:
    raw = json.dumps({"jti": text}).encode()
    jti = None
    with contextlib.suppress(RequestError):
        jti, _ = read_revocation(raw)
    visible = 1 <= len(text) <= 256 and all("!" <= letter <= "~" for letter in text)
    assert jti == (text if visible else None)
