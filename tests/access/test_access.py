"""Finding out who makes a request: warm and cold keys, unknown and wrong ones, and their limits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from rbee.errors import ErrorCode
from rbee.supervisor.access import keyring as keyrings
from rbee.supervisor.access.access import DeniedError, Pending
from rbee.supervisor.access.api_key import NewKey, fingerprint, new_key
from rbee.supervisor.access.principal import ANYBODY, Principal, Role
from rbee.supervisor.access.throttle import ThrottleLimits
from rbee.supervisor.access.verifier import QUEUE_MAX, Verifier
from tests.access.keys import NOW_UNIX_S, Stand, forged

UNTHROTTLED = ThrottleLimits(10**6, 1.0, 10**6, 1.0)


@asynccontextmanager
async def standing(limits: ThrottleLimits | None = UNTHROTTLED) -> AsyncIterator[Stand]:
    stand = Stand(limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand.verifier.run)
        yield stand
        nursery.cancel_scope.cancel(reason="the test is over")


async def identify(stand: Stand, key: NewKey | str, address: str = "10.0.0.1") -> Principal:
    text = key if isinstance(key, str) else key.text
    found = stand.access.identify([f"Bearer {text}"], [], address)
    if isinstance(found, Principal):
        return found
    done = trio.Event()
    found.verification.call_when_done(done.set)
    with trio.fail_after(10):
        await done.wait()
    return found.principal()


async def denied(stand: Stand, key: NewKey | str, **more: Any) -> DeniedError:
    with pytest.raises(DeniedError) as caught:
        await identify(stand, key, **more)
    return caught.value


async def test_without_a_key_everybody_is_let_in_until_there_is_one() -> None:
    async with standing() as stand:
        assert stand.access.is_open
        assert stand.access.identify(["nonsense"], ["x"], "") is ANYBODY
        stand.give({})
        assert not stand.access.is_open
        with pytest.raises(DeniedError) as caught:
            stand.access.identify([], [], "")
        assert (caught.value.code, caught.value.reason) == (ErrorCode.INVALID_API_KEY, "missing")
        stand.keep([])
        assert not stand.access.is_open, "once keys were asked for they stay asked for"


async def test_a_key_is_verified_once_and_then_known_at_once() -> None:
    async with standing() as stand:
        (key,) = stand.give({"role": "operator", "models": ("one",), "expires_s": NOW_UNIX_S + 9})
        who = await identify(stand, key)
        assert (who.actor, who.role, who.models) == (f"key:{key.id}", Role.OPERATOR, {"one"})
        assert (who.credential_id, who.expires_unix_s) == (key.id, NOW_UNIX_S + 9)
        for _ in range(5):
            assert stand.access.identify([f"bearer {key.text}"], [], "") is who
        assert stand.verified == [key.text]


async def test_a_key_that_is_made_while_it_is_looked_at_is_good_from_the_next_time_on() -> None:
    async with standing() as stand:
        key = new_key()
        stand.keyring.is_required = True
        found = stand.access.identify([f"Bearer {key.text}"], [], "")
        assert isinstance(found, Pending)
        done = trio.Event()
        found.verification.call_when_done(done.set)
        stand.keep([stand.ring.row(key)])  # what it is held against by now is nobody's hash
        await done.wait()
        with pytest.raises(DeniedError):
            found.principal()
        assert (await identify(stand, key)).credential_id == key.id


async def test_unknown_and_wrong_keys_are_told_the_same_after_the_same_work() -> None:
    async with standing() as stand:
        (key,) = stand.give({})
        wrong = forged(key.id).text
        answers = [await denied(stand, text) for text in (wrong, new_key())]
        assert [each.reason for each in answers] == ["wrong", "unknown"]
        assert len({(each.code, each.message) for each in answers}) == 1
        assert len(stand.verified) == 2
        assert answers[0].fingerprint == fingerprint(wrong)


async def test_what_is_no_key_costs_no_work() -> None:
    async with standing(None) as stand:
        (key,) = stand.give({})
        for text in ("abc", key.text[:-1], key.text + "0", key.text.swapcase(), "eyJ.eyJ.sig"):
            error = await denied(stand, text)
            assert (error.code, error.reason) == (ErrorCode.INVALID_API_KEY, "unknown")
        for _ in range(1000):
            await denied(stand, "abc")
        assert stand.verified == []


async def test_a_bad_key_that_comes_again_costs_no_work_until_keys_change() -> None:
    async with standing() as stand:
        stand.give({})
        late = new_key()
        for _ in range(20):
            assert (await denied(stand, late)).reason == "unknown"
        assert stand.verified == [late.text]
        stand.keep([stand.ring.row(late)])
        assert (await identify(stand, late)).credential_id == late.id


async def test_bad_keys_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyrings, "BAD_KEYS_MAX", 3)
    async with standing() as stand:
        stand.give({})
        for _ in range(10):
            await denied(stand, new_key())
        assert len(stand.keyring._bad) == 3


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"revoked_s": NOW_UNIX_S - 1}, "revoked"),
        ({"expires_s": NOW_UNIX_S}, "expired"),
        ({"expires_s": NOW_UNIX_S - 1, "revoked_s": NOW_UNIX_S - 1}, "revoked"),
    ],
)
async def test_who_has_the_key_is_told_why_it_opens_nothing(
    more: dict[str, Any], reason: str
) -> None:
    async with standing() as stand:
        (key,) = stand.give(more)
        for _ in range(3):
            error = await denied(stand, key)
            assert (error.code, error.reason) == (ErrorCode.INVALID_API_KEY, reason)
        assert stand.verified == [key.text], "it is known, and costs no further work"


async def test_a_warm_key_that_expires_or_is_revoked_is_refused_from_then_on() -> None:
    async with standing() as stand:
        one, two = stand.give({"expires_s": NOW_UNIX_S + 1}, {})
        principals = [await identify(stand, key) for key in (one, two)]
        assert [stand.access.lapsed(each) for each in principals] == [None, None]
        stand.now_unix_s += 1
        assert (await denied(stand, one)).reason == "expired"
        assert (await identify(stand, two)).credential_id == two.id
        stand.keep([stand.ring.row(two, revoked_s=NOW_UNIX_S)])
        assert (await denied(stand, two)).reason == "revoked"
        gone, revoked = [stand.access.lapsed(each) for each in principals]
        assert gone is not None
        assert revoked is not None
        assert (gone.message, revoked.message) == ("the API key was revoked",) * 2
        assert (await denied(stand, one)).reason == "unknown"
        assert stand.access.lapsed(ANYBODY) is None


async def test_a_token_of_another_kind_lapses_when_it_expires() -> None:
    async with standing() as stand:
        who = Principal("jwt:a/b", Role.USER, expires_unix_s=NOW_UNIX_S + 5.0)
        assert stand.access.lapsed(who) is None
        stand.now_unix_s += 5
        error = stand.access.lapsed(who)
        assert error is not None
        assert error.code is ErrorCode.INVALID_API_KEY


async def test_a_key_that_is_revoked_while_it_is_verified_is_not_let_in() -> None:
    async with standing() as stand:
        (key,) = stand.give({})
        found = stand.access.identify([f"Bearer {key.text}"], [], "")
        assert isinstance(found, Pending)
        stand.keep([stand.ring.row(key, revoked_s=1)])
        done = trio.Event()
        found.verification.call_when_done(done.set)
        await done.wait()
        with pytest.raises(DeniedError, match="revoked"):
            found.principal()


async def test_failures_are_throttled_without_work_and_good_keys_are_not() -> None:
    limits = ThrottleLimits(3, 0.5, 100, 1.0)
    async with standing(limits) as stand:
        warm, cold = stand.give({}, {})
        await identify(stand, warm)
        for _ in range(3):
            assert (await denied(stand, new_key())).reason == "unknown"
        for key in [new_key() for _ in range(5)] + [cold]:
            error = await denied(stand, key)
            assert (error.code, error.reason) == (ErrorCode.AUTHENTICATION_THROTTLED, "throttled")
            assert error.retry_after_s == pytest.approx(2)
        assert len(stand.verified) == 4
        assert (await identify(stand, warm)).credential_id == warm.id
        assert (await identify(stand, cold, address="10.0.0.2")).credential_id == cold.id
        stand.now_s += 2
        assert (await denied(stand, new_key())).reason == "unknown"


async def test_only_so_many_keys_wait_to_be_verified() -> None:
    stand = Stand(UNTHROTTLED)  # nobody verifies yet
    stand.give({})
    keys = [new_key() for _ in range(QUEUE_MAX)]
    pending = [stand.access.identify([f"Bearer {key.text}"], [], "") for key in keys]
    again = stand.access.identify([f"Bearer {keys[0].text}"], [], "")
    assert isinstance(again, Pending)
    assert isinstance(pending[0], Pending)
    assert again.verification is pending[0].verification, "the same key waits for the same answer"
    error = await denied(stand, new_key())
    assert (error.code, error.reason) == (ErrorCode.AUTHENTICATION_THROTTLED, "throttled")
    with pytest.raises(DeniedError, match="cannot be looked at now"):
        again.principal()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand.verifier.run)
        while len(stand.verified) < QUEUE_MAX:
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel(reason="all were verified")
    assert stand.verified == [key.text for key in keys]


async def test_many_requests_with_one_cold_key_are_one_verification() -> None:
    async with standing() as stand:
        (key,) = stand.give({})
        found: list[Principal] = []

        async def ask() -> None:
            found.append(await identify(stand, key))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert len(found) == 100
        assert stand.verified == [key.text]


async def test_one_wrong_key_in_many_requests_is_one_failure() -> None:
    async with standing(ThrottleLimits(2, 0.001, 2, 0.001)) as stand:
        stand.give({})
        bad = new_key()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(denied, stand, bad)
        assert (await denied(stand, new_key())).reason == "unknown"
        assert (await denied(stand, new_key())).reason == "throttled"


@pytest.mark.parametrize("trouble", [MemoryError(), OSError(11, "no more threads")])
async def test_a_verification_that_cannot_be_made_is_no_failure(trouble: BaseException) -> None:
    stand = Stand(ThrottleLimits(1, 0.001, 1, 0.001))
    (key,) = stand.give({})
    fail = True

    def fits(text: str, hashed: str) -> bool:
        if fail:
            raise trouble
        return stand.ring.fits(text, hashed)

    stand.access._verifier = stand.verifier = Verifier(fits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand.verifier.run)
        error = await denied(stand, key)
        assert (error.code, error.reason) == (ErrorCode.AUTHENTICATION_THROTTLED, "throttled")
        fail = False
        assert (await identify(stand, key)).credential_id == key.id
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_audit_log_hears_of_a_keys_first_use_and_of_failures() -> None:
    async with standing() as stand:
        (key,) = stand.give({"role": "admin"})
        who = await identify(stand, key)
        for _ in range(3):
            stand.access.note_use(who, "/v1/models", "10.0.0.1")
            stand.access.note_use(ANYBODY, "/v1/models", "10.0.0.1")
        (told,) = stand.audit.of("auth.success")
        assert (told.key, told.role, told.route) == (key.id, "admin", "/v1/models")
        assert told.fingerprint == fingerprint(key.text)
        error = await denied(stand, new_key())
        for _ in range(7):
            stand.access.note_denial(error, "none", "10.0.0.9")
        stand.access.tell_counted()
        (told,) = stand.audit.of("auth.failure")
        assert (told.reason, told.address, told.times) == ("unknown", "10.0.0.9", 1)
        stand.now_s += 60
        stand.access.tell_counted()
        assert [each.times for each in stand.audit.of("auth.failure")] == [1, 6]
        assert key.text not in repr(stand.audit.heard)


async def test_seen_credentials_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.supervisor.access.access._GREETED_MAX", 2)
    async with standing() as stand:
        for number in range(5):
            who = Principal("jwt:x", Role.USER, credential_id=f"t{number}")
            stand.access.note_use(who, "none", "")
        assert len(stand.audit.of("auth.success")) == 5
        assert len(stand.access._greeted) <= 2


async def test_a_key_that_has_not_changed_is_not_made_again_and_one_that_has_is() -> None:
    async with standing() as stand:
        one, two = new_key(), new_key()
        stand.keep([stand.ring.row(one), stand.ring.row(two)])
        before = [stand.keyring.find(key.id) for key in (one, two)]
        stand.keep([stand.ring.row(one), stand.ring.row(two, revoked_s=5)])
        after = [stand.keyring.find(key.id) for key in (one, two)]
        assert after[0] is before[0]
        assert after[1] is not None
        assert after[1].is_revoked


@pytest.mark.parametrize(
    "broken", [{"role": "king"}, {"limits": {"requests_per_minute": 0}}, {"limits": {"x": 1}},
               {"hash": "none"}, {"id": "short"}],
)  # fmt: skip
async def test_a_row_that_is_no_key_opens_nothing_and_is_told(broken: dict[str, Any]) -> None:
    async with standing() as stand:
        row = stand.ring.row(new_key(), **broken)
        assert stand.keyring.replace([row]) == [row.id]
        assert len(stand.keyring) == 0
        assert not stand.access.is_open
        assert not stand.keyring.has_usable_keys(0.0)
