"""Limits of a key or a subject: buckets that fill again, leases, and what answers tell of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Limits
from rbee.supervisor.access import allowances
from rbee.supervisor.access.allowances import Allowances, Lease
from rbee.supervisor.access.bucket import Bucket
from rbee.supervisor.access.principal import ANYBODY, Principal, Role


def test_a_bucket_is_full_at_first_and_fills_again_at_a_steady_pace() -> None:
    bucket = Bucket(60, 0.0)
    assert (bucket.left(0.0), bucket.wait_s(0.0), bucket.reset_s(0.0)) == (60, 0, 0)
    bucket.take(60, 0.0)
    assert (bucket.left(0.0), bucket.wait_s(0.0), bucket.reset_s(0.0)) == (0, 1, 60)
    assert (bucket.left(10.0), bucket.wait_s(10.0), bucket.reset_s(10.0)) == (10, 0, 50)
    assert bucket.left(1000.0) == 60


def test_what_was_overdrawn_is_paid_back_first() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(90, 0.0)
    assert (bucket.left(0.0), bucket.wait_s(0.0), bucket.reset_s(0.0)) == (0, 31, 90)
    assert bucket.wait_s(31.0) == 0


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=50),
)
def test_nobody_gets_more_than_a_full_bucket_and_what_flows_in(
    per_minute: int, takes: list[tuple[float, int]]
) -> None:
    bucket, now_s, taken = Bucket(per_minute, 0.0), 0.0, 0
    for pause_s, amount in takes:
        now_s += pause_s
        assert 0 <= bucket.left(now_s) <= per_minute
        if bucket.left(now_s) >= amount:
            bucket.take(amount, now_s)
            taken += amount
    assert taken <= per_minute + now_s * per_minute / 60 + 1e-6


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0, 1e6))
def test_who_waits_as_long_as_told_gets_a_unit(per_minute: int, taken: int, now_s: float) -> None:
    bucket = Bucket(per_minute, now_s)
    bucket.take(taken, now_s)
    wait_s = bucket.wait_s(now_s)
    assert math.isfinite(wait_s)
    assert bucket.left(now_s + wait_s + 1e-3 * (1 + wait_s)) >= 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def principal(**limits: int) -> Principal:
    return Principal("key:abc", Role.USER, limits=Limits(**limits), credential_id="abc")


def admitted(accounts: Allowances, who: Principal) -> Lease:
    lease = accounts.admit(who, [])
    assert lease is not None
    return lease


def refused(accounts: Allowances, who: Principal) -> tuple[RequestError, dict[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    with pytest.raises(RequestError) as caught:
        accounts.admit(who, headers)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    return caught.value, dict(headers)


def test_who_has_no_limits_is_not_counted() -> None:
    accounts, headers = Allowances(Clock()), list[tuple[bytes, bytes]]()
    assert accounts.admit(ANYBODY, headers) is None
    assert accounts.admit(principal(), headers) is None
    assert headers == []


def test_requests_a_minute_are_counted_when_they_are_admitted() -> None:
    clock = Clock()
    accounts, who = Allowances(clock), principal(requests_per_minute=2)
    headers: list[tuple[bytes, bytes]] = []
    accounts.admit(who, headers)
    assert dict(headers) == {
        b"x-ratelimit-limit-requests": b"2",
        b"x-ratelimit-remaining-requests": b"1",
        b"x-ratelimit-reset-requests": b"30s",
    }
    admitted(accounts, who)
    error, told = refused(accounts, who)
    assert "2 requests per minute" in error.message
    assert error.retry_after_s == pytest.approx(30)
    assert told[b"x-ratelimit-remaining-requests"] == b"0"
    assert told[b"x-ratelimit-reset-requests"] == b"1m0s"
    clock.now_s = 30.0
    admitted(accounts, who)


def test_tokens_are_counted_as_they_are_made_and_may_be_overdrawn() -> None:
    clock = Clock()
    accounts, who = Allowances(clock), principal(tokens_per_minute=60)
    lease = admitted(accounts, who)
    lease.count_tokens(50)
    headers: list[tuple[bytes, bytes]] = []
    second = accounts.admit(who, headers)
    assert second is not None
    assert (b"x-ratelimit-remaining-tokens", b"10") in headers
    lease.count_tokens(70)
    lease.count_tokens(0)
    error, _ = refused(accounts, who)
    assert "60 tokens per minute" in error.message
    assert error.retry_after_s == pytest.approx(61)
    clock.now_s = 61.0
    admitted(accounts, who)


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_who_must_wait_less_than_a_second_is_held_back_too(kind: str) -> None:
    clock = Clock()
    accounts, who = Allowances(clock), principal(**{f"{kind}_per_minute": 120})
    if kind == "tokens":
        admitted(accounts, who).count_tokens(120)
    else:
        for _ in range(120):
            admitted(accounts, who)
    error, _ = refused(accounts, who)
    assert error.retry_after_s == pytest.approx(0.5)
    clock.now_s = 0.5
    admitted(accounts, who)


def test_what_is_left_of_both_kinds_is_told_and_only_limits_are_counted() -> None:
    accounts, headers = Allowances(Clock()), list[tuple[bytes, bytes]]()
    both = principal(requests_per_minute=2, tokens_per_minute=60)
    accounts.admit(both, headers)
    assert dict(headers).keys() == {
        b"x-ratelimit-%s-%s" % (what, kind)
        for what in (b"limit", b"remaining", b"reset")
        for kind in (b"requests", b"tokens")
    }
    without = Principal("key:other", Role.USER, limits=Limits(requests_per_minute=2))
    admitted(accounts, without).count_tokens(10**6)
    admitted(accounts, without)


def test_places_are_given_back_once() -> None:
    accounts, who = Allowances(Clock()), principal(concurrent_requests=2)
    first, second = admitted(accounts, who), admitted(accounts, who)
    error, told = refused(accounts, who)
    assert "2 concurrent requests" in error.message
    assert told == {}
    first.end()
    first.end()
    third = admitted(accounts, who)
    refused(accounts, who)
    second.end()
    third.end()
    admitted(accounts, who)


def test_a_refused_request_takes_nothing() -> None:
    accounts = Allowances(Clock())
    who = principal(concurrent_requests=1, requests_per_minute=5)
    lease = admitted(accounts, who)
    for _ in range(20):
        refused(accounts, who)
    lease.end()
    headers: list[tuple[bytes, bytes]] = []
    accounts.admit(who, headers)
    assert (b"x-ratelimit-remaining-requests", b"3") in headers


def test_what_is_refused_after_all_is_given_back_and_told_so() -> None:
    clock = Clock()
    accounts, who = Allowances(clock), principal(requests_per_minute=2, concurrent_requests=1)
    for clock.now_s in (0.0, 0.0, 1.0, 1.5):
        headers = [(b"x-other", b"1")]
        lease = accounts.admit(who, headers)
        assert lease is not None
        assert (b"x-ratelimit-remaining-requests", b"1") in headers
        lease.refund(headers)
        lease.end()
        assert headers == [
            (b"x-other", b"1"),
            (b"x-ratelimit-limit-requests", b"2"),
            (b"x-ratelimit-remaining-requests", b"2"),
            (b"x-ratelimit-reset-requests", b"0ms"),
        ]


def test_other_limits_begin_anew_and_what_is_open_stays_open() -> None:
    accounts = Allowances(Clock())
    lease = admitted(accounts, principal(concurrent_requests=1))
    refused(accounts, principal(concurrent_requests=1, requests_per_minute=5))
    lease.end()
    admitted(accounts, principal(concurrent_requests=1, requests_per_minute=5))


def test_a_limit_that_holds_back_is_told_once_a_minute() -> None:
    clock, told = Clock(), list[tuple[Principal, str, int]]()
    accounts = Allowances(clock, lambda *exceeded: told.append(exceeded))
    who = principal(concurrent_requests=1)
    admitted(accounts, who)
    for clock.now_s in (0.0, 1.0, 59.0, 60.0, 61.0):
        refused(accounts, who)
    assert told == [(who, "concurrent_requests", 1)] * 2


def subject(number: int, role: Role = Role.USER, **limits: int) -> Principal:
    return Principal(f"jwt:iss/{number}", role, limits=Limits(**limits), credential_id="jwt:j-1")


def test_a_subject_has_an_account_for_each_of_its_roles() -> None:
    accounts = Allowances(Clock())
    user = subject(1, requests_per_minute=1)
    operator = subject(1, Role.OPERATOR, requests_per_minute=9)
    admitted(accounts, user).end()
    for _ in range(3):  # to change between them brings nothing
        error, _ = refused(accounts, user)
        assert "this subject's limit of 1 requests per minute" in error.message
        admitted(accounts, operator).end()


def test_accounts_are_bounded_and_who_is_known_and_keys_are_still_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allowances, "ACCOUNTS_MAX", 3)
    clock, told = Clock(), list[tuple[str, str]]()
    accounts = Allowances(clock, lambda who, what, allowed: told.append((who.actor, what)))
    lease = admitted(accounts, subject(0, concurrent_requests=2))
    for number in (1, 2):
        admitted(accounts, subject(number, requests_per_minute=2)).end()
    for number in (3, 4):
        error, headers = refused(accounts, subject(number, requests_per_minute=2))
        assert "too many subjects" in error.message
        assert headers == {}
    assert told == [("jwt:iss/3", "subjects")], "once a minute"
    admitted(accounts, subject(1, requests_per_minute=2)).end()
    admitted(accounts, subject(0, concurrent_requests=2)).end()
    admitted(accounts, principal(requests_per_minute=1))
    clock.now_s = error.retry_after_s or 0.0
    for number in range(5, 50):
        admitted(accounts, subject(number, concurrent_requests=1)).end()
        assert len(accounts._accounts) <= 4
    lease.end()


def test_a_limit_that_was_told_is_not_told_again_because_it_was_forgotten() -> None:
    clock, told = Clock(), list[str]()
    accounts = Allowances(clock, lambda who, what, allowed: told.append(what))
    who = subject(0, concurrent_requests=1)
    for number in range(1, 30):
        lease = admitted(accounts, who)
        refused(accounts, who)
        lease.end()
        admitted(accounts, subject(number, concurrent_requests=1)).end()
    assert told == ["concurrent_requests"]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0, 40), st.integers(0, 200)), max_size=120),
    st.integers(1, 6),
)
def test_nobody_gains_by_being_forgotten_and_accounts_stay_bounded(
    visits: list[tuple[int, float, int]], accounts_max: int
) -> None:
    """Whoever is let in is told what a table tells that has no bound and forgets nobody."""
    clock, limits = Clock(), {"requests_per_minute": 2, "tokens_per_minute": 60}
    bounded, unbounded = Allowances(clock), Allowances(clock)
    with pytest.MonkeyPatch.context() as patch:
        for number, pause_s, tokens in visits:
            clock.now_s += pause_s
            who = subject(number, **limits)
            patch.setattr(allowances, "ACCOUNTS_MAX", accounts_max)
            patch.setattr(allowances, "LOOKS", 2)
            is_known = (who.actor, who.role) in bounded._accounts
            here = _visit(bounded, who)
            assert len(bounded._accounts) <= accounts_max
            patch.setattr(allowances, "ACCOUNTS_MAX", 10**6)
            patch.setattr(allowances, "LOOKS", 0)
            if isinstance(here, RequestError) and "too many subjects" in here.message:
                assert not is_known
                continue
            there = _visit(unbounded, who)
            if isinstance(here, RequestError) or isinstance(there, RequestError):
                assert str(here) == str(there)
                continue
            (lease, told), (other, also_told) = here, there
            assert told == also_told
            for each in (lease, other):
                each.count_tokens(tokens)
                each.end()


def _visit(
    accounts: Allowances, who: Principal
) -> tuple[Lease, list[tuple[bytes, bytes]]] | RequestError:
    headers: list[tuple[bytes, bytes]] = []
    try:
        lease = accounts.admit(who, headers)
    except RequestError as error:
        return error
    assert lease is not None
    return lease, headers


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, b"0ms"), (0.017, b"17ms"), (0.9, b"900ms"), (1, b"1s"), (1.54, b"1.5s"), (59.96, b"1m0s"),
     (360, b"6m0s"), (90.25, b"1m30.2s")],
)  # fmt: skip
def test_times_are_spelled_as_openai_spells_them(seconds: float, told: bytes) -> None:
    assert allowances._duration(seconds) == told
