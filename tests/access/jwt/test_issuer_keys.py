"""The issuer's keys: fresh when they change, the last ones when they cannot be had."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import CapturingLogger
from trio.testing import MockClock, wait_all_tasks_blocked

from rbee.errors import ConfigError
from rbee.supervisor.access.jwt.freshness import ASKED_EVERY_S_MIN
from rbee.supervisor.access.jwt.issuer_keys import WAITING_MAX, IssuerKeys
from rbee.supervisor.access.jwt.key_set import KeySetError
from tests.access.jwt.issuer import EC_KEY, ED_KEY, config, jwk, key_set, write_key_set

OLD, NEW = key_set(jwk(EC_KEY, kid="old")), key_set(jwk(EC_KEY, kid="old"), jwk(ED_KEY, kid="new"))


class FakeSource:
    """Gives a text, or what is wrong with it."""

    def __init__(self, text: bytes | str) -> None:
        self.text = text
        self.asked_s: list[float] = []
        self.gate: trio.Event | None = None

    async def read(self) -> bytes:
        self.asked_s.append(trio.current_time())
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.text, str):
            raise KeySetError(self.text)
        return self.text


@asynccontextmanager
async def running(source: FakeSource, **more: Any) -> AsyncIterator[tuple[IssuerKeys, Any]]:
    log = CapturingLogger()
    url = "https://id.example.org/keys"
    keys = IssuerKeys(config(jwks_url=url, **more), log, trio.current_time, source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        yield keys, log
        nursery.cancel_scope.cancel()


def told(log: Any) -> list[str]:
    return [call.args[0] for call in log.calls]


def count(keys: IssuerKeys) -> int:
    return 0 if keys.keys is None else len(keys.keys)


async def test_they_are_asked_for_at_once_and_again_each_refresh(autojump_clock: MockClock) -> None:
    source = FakeSource(OLD)
    async with running(source, jwks_refresh_s=60.0) as (keys, log):
        await trio.sleep(1)
        assert count(keys) == 1
        source.text = NEW
        await trio.sleep(60)
        assert count(keys) == 2
    assert source.asked_s == [0, 60]
    assert told(log) == ["jwt_keys_loaded", "jwt_keys_loaded"]


async def test_an_unknown_key_is_asked_for_and_whoever_waits_is_called(
    autojump_clock: MockClock,
) -> None:
    source = FakeSource(OLD)
    async with running(source) as (keys, _):
        await trio.sleep(ASKED_EVERY_S_MIN)
        source.text = NEW
        called: list[int] = []
        assert keys.call_when_fresh(lambda: called.append(count(keys)))
        assert keys.call_when_fresh(lambda: called.append(count(keys)))
        await wait_all_tasks_blocked()
        assert called == [2, 2]
        assert source.asked_s == [0, ASKED_EVERY_S_MIN]
        # A flood of ids that nobody knows makes nobody ask again before the time.
        assert not any(keys.call_when_fresh(lambda: None) for _ in range(1_000))


async def test_those_who_come_while_keys_are_asked_for_wait_for_them_and_are_not_too_many(
    autojump_clock: MockClock,
) -> None:
    source = FakeSource("nothing yet")
    source.gate = trio.Event()
    async with running(source) as (keys, _):
        await wait_all_tasks_blocked()
        called: list[int] = []
        taken = [keys.call_when_fresh(lambda: called.append(1)) for _ in range(WAITING_MAX + 5)]
        assert taken.count(True) == WAITING_MAX
        source.gate.set()
        await wait_all_tasks_blocked()
        assert len(called) == WAITING_MAX  # also those for whom there is nothing


async def test_without_the_issuer_the_last_keys_hold_for_a_time(autojump_clock: MockClock) -> None:
    source = FakeSource(OLD)
    async with running(source, jwks_refresh_s=60.0, jwks_stale_s=600.0) as (keys, log):
        await trio.sleep(1)
        source.text = "it is not there"
        await trio.sleep(630)
        assert count(keys) == 1
        await trio.sleep(60)
        assert keys.keys is None
        source.text = OLD
        await trio.sleep(60)
        assert count(keys) == 1
    names = told(log)
    assert names[0] == "jwt_keys_loaded"
    assert names.count("jwt_keys_unavailable") == 2  # once as it begins, once as nothing holds
    assert names[-1] == "jwt_keys_available"


@pytest.mark.parametrize("text", [b"", b"{}", key_set({"kty": "oct", "k": "AA", "kid": "x"})])
async def test_an_answer_that_is_no_set_of_keys_changes_nothing(
    text: bytes, autojump_clock: MockClock
) -> None:
    source = FakeSource(OLD)
    async with running(source, jwks_refresh_s=60.0) as (keys, log):
        await trio.sleep(1)
        source.text = text
        await trio.sleep(100)
        assert count(keys) == 1
    assert told(log) == ["jwt_keys_loaded", "jwt_keys_unavailable"]


async def test_a_key_that_has_gone_opens_nothing(autojump_clock: MockClock) -> None:
    source = FakeSource(NEW)
    async with running(source, jwks_refresh_s=60.0) as (keys, _):
        await trio.sleep(1)
        before = keys.keys
        source.text = OLD
        await trio.sleep(60)
        assert keys.keys is not before
        assert count(keys) == 1


# --- a file


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = IssuerKeys(config(jwks_file=str(path)), CapturingLogger(), lambda: 0.0)
    with pytest.raises(ConfigError, match=r"jwt\.jwks_file .*keys\.json: it cannot be read"):
        keys.open()
    path.write_text("{}")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match='a list "keys"'):
        keys.open()


async def test_a_file_that_is_replaced_is_seen_and_a_broken_one_is_not_taken(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    path = tmp_path / "keys.json"
    write_key_set(path, jwk(EC_KEY, kid="old"))
    log: Any = CapturingLogger()
    keys = IssuerKeys(config(jwks_file=str(path)), log, trio.current_time)
    keys.open()
    mock_clock.rate = 100
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        write_key_set(path, jwk(EC_KEY, kid="old"), jwk(ED_KEY, kid="new"))
        while count(keys) < 2:
            await trio.sleep(0.5)
        path.write_text("half a fi")
        while "jwt_keys_unavailable" not in told(log):
            await trio.sleep(0.5)
        assert count(keys) == 2
        nursery.cancel_scope.cancel()


def test_a_reload_checks_the_file_first_and_takes_it_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_key_set(path, jwk(EC_KEY, kid="old"))
    keys = IssuerKeys(config(jwks_file=str(path)), CapturingLogger(), lambda: 0.0)
    keys.open()
    assert keys.prepare() is None  # nothing has changed
    write_key_set(path, jwk(EC_KEY, kid="old"), jwk(ED_KEY, kid="new"))
    prepared = keys.prepare()
    assert prepared is not None
    assert prepared[0] == "jwt.jwks_file"
    assert count(keys) == 1
    prepared[1]()
    assert count(keys) == 2
    path.write_text("half a fi")
    with pytest.raises(ConfigError, match="must be JSON"):
        keys.prepare()
    assert count(keys) == 2


def test_a_reload_of_an_address_is_left_to_its_task() -> None:
    url = "https://id.example.org/keys"
    keys = IssuerKeys(config(jwks_url=url), CapturingLogger(), lambda: 0.0, FakeSource(OLD))
    assert keys.prepare() is None
