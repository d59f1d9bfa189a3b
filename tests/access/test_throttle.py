"""How often somebody may fail, and what the audit log hears of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.audit.opening import open_audit
from rbee.audit.place import place_in
from rbee.config import AccessConfig, AuditConfig
from rbee.supervisor.access import failures, throttle
from rbee.supervisor.access.access import DeniedError
from rbee.supervisor.access.failures import OTHERS, WINDOW_S, Failure, FailureLedger
from rbee.supervisor.access.tending import open_gate
from rbee.supervisor.access.throttle import Throttle, ThrottleLimits, network_of
from tests.access.jwt.issuer import config, write_key_set
from tests.api.face import LogLines

LIMITS = ThrottleLimits(
    address_failures_max=3, address_forgiven_per_s=0.5, id_failures_max=5, id_forgiven_per_s=1.0
)


def test_an_address_waits_after_so_many_failures_and_is_forgiven_at_a_steady_pace() -> None:
    guard = Throttle(LIMITS)
    for number in range(3):
        assert guard.wait_s("10.0.0.1", f"id{number}", 0.0) == 0
        guard.note_failure("10.0.0.1", f"id{number}", 0.0)
    assert guard.wait_s("10.0.0.1", "other", 0.0) == pytest.approx(2)
    assert guard.wait_s("10.0.0.1", "other", 1.0) == pytest.approx(1)
    assert guard.wait_s("10.0.0.1", "other", 2.0) == 0
    assert guard.wait_s("10.0.0.2", "other", 0.0) == 0


def test_an_id_waits_also_if_each_failure_comes_from_elsewhere() -> None:
    guard = Throttle(LIMITS)
    for number in range(5):
        guard.note_failure(f"10.0.0.{number}", "id", 0.0)
    assert guard.wait_s("10.0.1.1", "id", 0.0) == pytest.approx(1)
    assert guard.wait_s("10.0.1.1", "id", 1.0) == 0
    assert guard.wait_s("10.0.1.1", "other", 0.0) == 0


def test_the_limits_are_the_configurations_and_the_defaults_are_the_same() -> None:
    assert ThrottleLimits.of(AccessConfig()) == ThrottleLimits()
    given = AccessConfig(
        address_failures_max=3, address_forgiven_per_s=0.5, id_failures_max=5, id_forgiven_per_s=1.0
    )
    assert ThrottleLimits.of(given) == LIMITS


async def test_the_gate_is_opened_with_what_is_configured(tmp_path: Path) -> None:
    write_key_set(keys := tmp_path / "keys.json")
    access, jwt, log = (
        AccessConfig(address_failures_max=2, address_forgiven_per_s=0.01),
        config(jwks_file=str(keys)),
        LogLines(),
    )
    with (
        open_audit(AuditConfig(enabled=False), place_in(tmp_path), log) as opened,
        open_gate(access, jwt, tmp_path, log, opened) as gate,
    ):
        reasons = []
        for number in range(3):
            with pytest.raises(DeniedError) as caught:
                gate.access.identify([f"Bearer eyJ{number}"], [], "10.0.0.1")
            reasons.append(caught.value.reason)
        assert reasons == ["malformed", "malformed", "throttled"]
        assert caught.value.retry_after_s == pytest.approx(100, abs=10)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=40))
def test_nobody_fails_more_often_than_the_pace_allows(tries: list[tuple[str, float]]) -> None:
    guard, now_s, failed = Throttle(LIMITS), 0.0, 0
    for key_id, pause_s in tries:
        now_s += pause_s
        if guard.wait_s("::1", key_id, now_s) == 0:
            guard.note_failure("::1", key_id, now_s)
            failed += 1
    assert failed <= LIMITS.address_failures_max + now_s * LIMITS.address_forgiven_per_s + 1e-6


def test_who_waits_as_long_as_told_is_looked_at() -> None:
    guard = Throttle(LIMITS)
    for _ in range(30):
        guard.note_failure("a", "b", 0.0)
    wait_s = guard.wait_s("a", "b", 0.0)
    assert 0 < wait_s < 10, "more failures than are looked at do not lengthen the wait"
    assert guard.wait_s("a", "b", wait_s + 1e-6) == 0


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "ENTRIES_MAX", 10)
    guard = Throttle(LIMITS)
    for number in range(100):
        guard.note_failure(f"10.0.0.{number}", f"id{number}", float(number))
    assert len(guard._addresses._levels) == len(guard._ids._levels) == 10


def test_who_failed_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "ENTRIES_MAX", 10)
    guard = Throttle(LIMITS)

    def fail(*addresses: str) -> None:
        for address in addresses:
            guard.note_failure(address, f"id of {address}", 0.0)

    others = iter([f"10.0.0.{number}" for number in range(30)])
    fail("10.1.1.1", "10.1.1.1", *(next(others) for _ in range(9)), "10.1.1.1")
    fail(*(next(others) for _ in range(9)))
    assert guard.wait_s("10.1.1.1", "id", 0.0) > 0
    fail(next(others))
    assert guard.wait_s("10.1.1.1", "id", 0.0) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_the_addresses_of_one_customer_count_together(address: str, network: str) -> None:
    assert network_of(address) == network


def failure(address: str = "10.0.0.1", reason: str = "wrong") -> Failure:
    return Failure(reason, "abcdef", "/v1/models", address)


def test_the_first_failure_is_told_at_once_and_the_others_together() -> None:
    ledger = FailureLedger()
    told = ledger.note(failure(), 0.0)
    assert told is not None
    assert (told.times, told.failure) == (1, failure())
    for _ in range(500):
        assert ledger.note(failure(reason="throttled"), 1.0) is None
    assert ledger.due(WINDOW_S - 0.1) == []
    (told,) = ledger.due(WINDOW_S)
    assert (told.times, told.failure) == (500, failure(reason="throttled"))
    assert ledger.due(2 * WINDOW_S) == []
    assert ledger.note(failure(), 2 * WINDOW_S) is not None


def test_addresses_without_end_are_told_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "ADDRESSES_MAX", 5)
    ledger = FailureLedger()
    told = [ledger.note(failure(f"10.0.0.{n}"), 0.0) for n in range(100)]
    assert sum(each is not None for each in told) == 5
    (others,) = ledger.due(WINDOW_S)
    assert (others.failure.address, others.times) == (OTHERS, 95)
    assert len(ledger._windows) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40)), max_size=60))
def test_every_failure_is_told_once(tries: list[tuple[str, float]]) -> None:
    ledger, now_s, told = FailureLedger(), 0.0, 0
    for address, pause_s in tries:
        now_s += pause_s
        told += sum(each.times for each in ledger.due(now_s))
        told += 0 if ledger.note(failure(address), now_s) is None else 1
    told += sum(each.times for each in ledger.due(now_s + WINDOW_S))
    assert told == len(tries)
