"""JWTs at the door: known at once, verified once, waiting for fresh keys, told to come again."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import CapturingLogger

from rbee.errors import ConfigError, ErrorCode, RequestError
from rbee.rate_limits import NO_LIMITS, Limits, Priority
from rbee.store import open_store
from rbee.supervisor.access.access import Access, DeniedError, Pending
from rbee.supervisor.access.jwt.jwts import Jwts
from rbee.supervisor.access.jwt.key_set import KeySetError
from rbee.supervisor.access.keyring import Keyring
from rbee.supervisor.access.principal import Principal, Role
from rbee.supervisor.access.throttle import ThrottleLimits
from rbee.supervisor.access.verifier import Verifier
from tests.access.jwt.issuer import EC_KEY, ED_KEY, claims, config, jwk, key_set, sign
from tests.access.jwt.test_redis_server import needs_server, password_file, url
from tests.access.keys import HeardAudit

__all__ = ["password_file", "url"]  # fixtures

ADDRESS = "10.0.0.1"


class Issuer:
    """Where keys come from."""

    def __init__(self) -> None:
        self.text: bytes | None = key_set(jwk(EC_KEY, kid="ES256"))
        self.asked = 0

    async def read(self) -> bytes:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.text is None:
            raise KeySetError("it is not there")
        return self.text


class Door:
    """JWTs behind an `Access`, with an issuer of the test's own."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.issuer = Issuer()
        self.log: Any = CapturingLogger()
        store = folder / "rbee.db"
        made = open_store(store)
        assert made is not None
        made.close()
        given = config(jwks_url="https://id.example.org/keys", leeway_s=0.0, **more)
        self.jwts = Jwts(given, store, self.log)
        self.jwts.issuer_keys._source = self.issuer
        self.audit = HeardAudit()
        self.access = Access(
            Keyring(is_required=True), Verifier(), clock=trio.current_time, unix_clock=time.time,
            throttle_limits=ThrottleLimits(3, 0.001, 1_000, 1.0), jwts=self.jwts, audit=self.audit,
        )  # fmt: skip
        self.jwts.open()

    def look(self, text: str, address: str = ADDRESS) -> Principal | Pending:
        return self.access.identify([f"Bearer {text}"], [], address)

    async def identify(self, text: str, address: str = ADDRESS) -> Principal:
        found = self.look(text, address)
        if isinstance(found, Principal):
            return found
        done = trio.Event()
        found.verification.call_when_done(done.set)
        with trio.fail_after(10):
            await done.wait()
        return found.principal()

    async def refused(self, text: str, address: str = ADDRESS) -> RequestError:
        with pytest.raises(RequestError) as caught:
            await self.identify(text, address)
        return caught.value


@asynccontextmanager
async def standing(folder: Path, **more: Any) -> AsyncIterator[Door]:
    door = Door(folder, **more)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.jwts.run)
            yield door
            nursery.cancel_scope.cancel()
    finally:
        door.jwts.close()


async def test_who_comes_while_the_first_keys_are_asked_for_waits_and_then_is_known_at_once(
    tmp_path: Path,
) -> None:
    async with standing(tmp_path) as door:
        text = sign(claims(roles=["viewer", "operator"]))
        assert isinstance(door.look(text), Pending)
        who = await door.identify(text)
        assert who.role is Role.OPERATOR
        assert door.look(text) is who, "it was verified once, and is known from then on"
        assert door.access.lapsed(who) is None


async def test_limits_are_those_of_the_role_or_of_all_and_count_for_the_subject(
    tmp_path: Path,
) -> None:
    of_all, of_operators = Limits(requests_per_minute=1), Limits(priority=Priority.HIGH)
    of_roles = {"operator": of_operators, "admin": NO_LIMITS}
    async with standing(tmp_path, limits=of_all, role_limits=of_roles) as door:
        for role, limits in {"viewer": of_all, "user": of_all, **of_roles}.items():
            who = await door.identify(sign(claims(roles=[role], jti=role)))
            assert who.limits == limits
        first, second = [await door.identify(sign(claims(jti=f"j-{n}"))) for n in range(2)]
        other = await door.identify(sign(claims(sub="bob")))
        admit = door.access.allowances.admit
        assert admit(first, []) is not None
        with pytest.raises(RequestError, match="this subject's limit of 1 requests per minute"):
            admit(second, [])
        assert admit(other, []) is not None
        [exceeded] = door.audit.of("limit.exceeded")
        assert (exceeded.limit, exceeded.subject) == ("requests_per_minute", second.actor)


async def test_a_new_key_of_the_issuer_costs_no_request(tmp_path: Path) -> None:
    async with standing(tmp_path) as door:
        await door.identify(sign(claims()))
        door.issuer.text = key_set(jwk(EC_KEY, kid="ES256"), jwk(ED_KEY, kid="EdDSA"))
        door.jwts.issuer_keys._freshness.begin(-100.0)  # the last time was long ago
        assert await door.identify(sign(claims(), "EdDSA"))
        assert door.issuer.asked == 2
        # Another that nobody knows is refused without asking again so soon.
        error = await door.refused(sign(claims(), "EdDSA", kid="else"))
        assert isinstance(error, DeniedError)
        assert error.reason == "unknown"
        assert door.issuer.asked == 2


async def test_without_keys_it_is_told_that_it_cannot_be_said_now(tmp_path: Path) -> None:
    async with standing(tmp_path) as door:
        door.issuer.text = None
        for _ in range(2):  # the first waits for the answer, the second does not
            error = await door.refused(sign(claims()))
            assert error.code is ErrorCode.JWT_UNAVAILABLE
            assert error.retry_after_s is not None
            assert 0 < error.retry_after_s <= 60
        door.issuer.text = key_set(jwk(EC_KEY, kid="ES256"))
        with trio.fail_after(10):
            while door.jwts.issuer_keys.keys is None:
                await trio.sleep(0.05)
        assert await door.identify(sign(claims()))


async def test_forgeries_are_counted_and_honest_mistakes_are_not(tmp_path: Path) -> None:
    async with standing(tmp_path) as door:
        good = sign(claims())
        await door.identify(good)
        now_s = time.time()
        for _ in range(6):
            expired = sign(claims(exp=now_s - 1, iat=now_s - 9, nbf=now_s - 9))
            assert (await door.refused(expired)).code is ErrorCode.INVALID_API_KEY
        codes = [(await door.refused(good[:-8] + "AAAAAAAA")).code for _ in range(6)]
        assert codes[0] is ErrorCode.INVALID_API_KEY
        assert codes[-1] is ErrorCode.AUTHENTICATION_THROTTLED
        assert door.look(good)  # who is known never waits
        assert await door.identify(sign(claims(jti="j-2")), "10.0.0.2")


async def test_what_runs_ends_when_its_jwt_is_revoked_or_expires(tmp_path: Path) -> None:
    async with standing(tmp_path) as door:
        who = await door.identify(sign(claims(jti="j-1")))
        soon = await door.identify(sign(claims(jti="j-2", exp=time.time() + 1.5)))
        assert door.access.lapsed(who) is None
        await door.jwts.revocations.revoke("j-1", door.jwts.revocations.kept_until_s(None))
        lapsed = door.access.lapsed(who)
        assert lapsed is not None
        assert lapsed.message == "the JWT was revoked"
        with trio.fail_after(10):
            while (lapsed := door.access.lapsed(soon)) is None:
                await trio.sleep(0.05)
        assert lapsed.message == "the JWT has expired"


async def test_keys_that_change_are_looked_at_anew(tmp_path: Path) -> None:
    async with standing(tmp_path, jwks_refresh_s=10.0) as door:
        text = sign(claims())
        await door.identify(text)
        door.issuer.text = key_set(jwk(ED_KEY, kid="EdDSA"))
        door.jwts.issuer_keys._freshness.begin(-100.0)
        assert await door.identify(sign(claims(), "EdDSA"))
        assert isinstance(await door.refused(text), DeniedError)


def test_an_address_or_a_library_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    name = "rbee.supervisor.access.jwt.redis_server"
    monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'rbee\[redis\]'"):
        Jwts(config(redis_url="redis://127.0.0.1:1"), tmp_path / "rbee.db", CapturingLogger())


@needs_server
async def test_two_boxes_share_what_is_revoked(
    tmp_path: Path, url: str, password_file: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    more: dict[str, Any] = {"redis_url": url, "redis_password_file": str(password_file)}
    more["issuer"] = issuer = "https://shared.example"
    text = sign(claims(iss=issuer, jti="j-1"))
    async with standing(tmp_path / "one", **more) as one, standing(tmp_path / "two", **more) as two:
        for door in (one, two):
            with trio.fail_after(10):
                while not await _is_let_in(door, text):
                    await trio.sleep(0.05)
        await one.jwts.revocations.revoke("j-1", int(time.time()) + 100)
        with trio.fail_after(10):
            while await _is_let_in(two, text):
                await trio.sleep(0.05)
        error = await two.refused(text)
        assert isinstance(error, DeniedError)
        assert error.reason == "revoked"
        assert two.jwts.revocations.listed().keys() == {"j-1"}


async def _is_let_in(door: Door, text: str) -> bool:
    try:
        await door.identify(text)
    except RequestError:
        return False
    return True
