"""What was revoked: kept in the store, seen from other processes, shared between boxes."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import CapturingLogger
from trio.testing import MockClock

from rbee.audit import NO_AUDIT
from rbee.audit.events import Details, JwtRevoked
from rbee.errors import StoreError
from rbee.store import RevokedToken, Store, open_store
from rbee.supervisor.access.jwt.bearers import NobodyKnowsError
from rbee.supervisor.access.jwt.revocations import Revocations
from rbee.supervisor.access.jwt.revoked import RevokedJwts, SharedUnavailableError
from rbee.supervisor.access.jwt.sharing import BLIND_AFTER_S, READ_ANEW_EVERY_S, Sharing
from tests.access.jwt.issuer import ISSUER, config

SOON_S = int(time.time()) + 1_000


class RecordingAudit:
    """Keeps what is recorded."""

    state = NO_AUDIT.state

    def __init__(self) -> None:
        self.told: list[tuple[str, Details]] = []

    def record(self, details: Details, *, actor: str, **_: Any) -> None:
        self.told.append((actor, details))

    async def record_durably(self, details: Details, *, actor: str, **_: Any) -> None:
        self.record(details, actor=actor)


def known(*, is_shared: bool = False, may_be_blind: bool = False) -> RevokedJwts:
    return RevokedJwts(is_shared=is_shared, may_be_blind=may_be_blind, unix_clock=time.time)


def make(path: Path) -> Store:
    store = open_store(path)
    assert store is not None
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rbee.db"
    make(path).close()
    return path


def opened(path: Path, revoked: RevokedJwts, **more: Any) -> Revocations:
    revocations = Revocations(path, config(), revoked, CapturingLogger(), **more)
    revocations.open()
    return revocations


async def see(what: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not what():
            await trio.sleep(0.02)


@asynccontextmanager
async def running(task: Any) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        yield
        nursery.cancel_scope.cancel()


async def revoke(revocations: Revocations, jti: str, expires_s: int | None = None) -> int:
    until_s = revocations.kept_until_s(expires_s)
    await revocations.revoke(jti, until_s)
    return until_s


# --- the store


async def test_what_is_revoked_is_refused_at_once_and_after_a_restart(path: Path) -> None:
    first = known()
    revocations = opened(path, first)
    assert not first.is_revoked("j-1")
    until_s = await revoke(revocations, "j-1")
    assert first.is_revoked("j-1")
    assert not first.is_revoked("j-2")
    # Nobody has told when it expires: as long as the longest of them may live, with leeway.
    assert until_s - time.time() == pytest.approx(86_400 + 60, abs=10)
    revocations.close()
    second = known()
    opened(path, second).close()
    assert second.is_revoked("j-1")


async def test_it_is_kept_until_the_jwt_expires_and_no_longer(path: Path) -> None:
    revoked = known()
    revocations = opened(path, revoked)
    leeway_s = 31  # with what was rounded up
    assert await revoke(revocations, "soon", SOON_S - leeway_s) == SOON_S
    assert await revoke(revocations, "late", SOON_S + 10**9) < SOON_S + 10**6
    assert set(revocations.listed()) == {"soon", "late"}
    now_s = int(time.time())
    with make(path) as store:
        store.revocations.add(RevokedToken(issuer=ISSUER, jti="next", expires_s=SOON_S), SOON_S - 1)
        assert {row.jti for row in store.revocations.all(now_s)} == {"soon", "late", "next"}
        store.revocations.add(RevokedToken(issuer=ISSUER, jti="last", expires_s=SOON_S + 9), SOON_S)
        assert {row.jti for row in store.revocations.all(now_s)} == {"late", "last"}
    revocations.close()


async def test_what_another_process_revokes_is_seen_and_recorded_once(path: Path) -> None:
    revoked, audit = known(), RecordingAudit()
    revocations = opened(path, revoked, audit=audit)
    async with running(revocations):
        with make(path) as other:
            other.revocations.add(RevokedToken(issuer=ISSUER, jti="j-1", expires_s=SOON_S), 0)
            other.revocations.add(RevokedToken(issuer="else", jti="j-2", expires_s=SOON_S), 0)
            await see(lambda: revoked.is_revoked("j-1"))
            assert not revoked.is_revoked("j-2")
        await revoke(revocations, "j-3")
        await trio.sleep(0.6)  # two more looks
    [(actor, details)] = audit.told
    assert actor.startswith("operator:")
    assert isinstance(details, JwtRevoked)
    assert details.jti == "j-1"
    revocations.close()


async def test_a_revocation_is_not_taken_back_by_a_later_one_that_ends_sooner(path: Path) -> None:
    revoked, audit = known(), RecordingAudit()
    revocations = opened(path, revoked, audit=audit)
    until_s = await revoke(revocations, "j-1")
    for sooner_s in (until_s - 60, int(time.time()) - 60):
        await revocations.revoke("j-1", sooner_s)
        assert revoked.is_revoked("j-1")
        assert revocations.listed() == {"j-1": until_s}
    assert audit.told == []  # of what other processes do; none has done anything
    revocations.close()


async def test_until_the_store_was_read_nobody_knows_and_then_they_do(tmp_path: Path) -> None:
    path = tmp_path / "rbee.db"
    revoked = known()
    revocations = opened(path, revoked)
    with pytest.raises(NobodyKnowsError, match="not known yet"):
        revoked.is_revoked("j-1")
    with pytest.raises(StoreError):
        await revoke(revocations, "j-1")
    async with running(revocations):
        make(path).close()
        await see(lambda: revoked._own is not None)
        assert not revoked.is_revoked("j-1")
    revocations.close()


async def test_a_store_that_goes_away_takes_nothing_back(path: Path) -> None:
    revoked = known()
    revocations = opened(path, revoked)
    await revoke(revocations, "j-1")
    async with running(revocations):
        for each in path.parent.iterdir():
            each.unlink()
        log: Any = revocations._log
        await see(lambda: bool(log.calls))
        assert revoked.is_revoked("j-1")
        assert log.calls[0].args[0] == "jwt_revocations_unavailable"
        with pytest.raises(StoreError):
            await revoke(revocations, "j-2")
        assert log.calls[-1].args[0] == "jwt_not_revoked"
    revocations.close()


# --- shared with other boxes


class FakeShared:
    """A Redis-compatible server that fails when told to."""

    def __init__(self, **revoked: int) -> None:
        self.revoked = revoked
        self.fails = False
        self.read_anew = 0
        self.version = 0
        self._seen = -1

    def read(self, now_s: int, *, anew: bool = False) -> dict[str, int] | None:
        if self.fails:
            raise SharedUnavailableError("gone")
        self.read_anew += anew
        if self._seen == self.version and not anew:
            return None
        self._seen = self.version
        return dict(self.revoked)

    def add(self, revoked: Any, now_s: int) -> None:
        self.revoked.update(revoked)
        self.version += 1


def sharing(shared: FakeShared, revoked: RevokedJwts, *, fails_closed: bool = True) -> Sharing:
    return Sharing(shared, revoked, CapturingLogger(), fails_closed=fails_closed)


async def test_what_is_revoked_elsewhere_is_refused_here_and_the_other_way_round(
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 50
    shared, revoked = FakeShared(there=SOON_S), known(is_shared=True)
    revoked.replace_own({"here": SOON_S})
    with pytest.raises(NobodyKnowsError):
        revoked.is_revoked("j-1")  # nobody has asked yet
    async with running(sharing(shared, revoked)):
        await see(lambda: "here" in revoked.shared)
        assert "here" in shared.revoked
        assert revoked.is_revoked("there")
        assert not revoked.is_revoked("j-1")
        shared.add({"later": SOON_S}, 0)
        await see(lambda: revoked.is_revoked("later"))


async def test_a_server_that_forgot_is_told_again(mock_clock: MockClock) -> None:
    mock_clock.rate = 200
    shared, revoked = FakeShared(), known(is_shared=True)
    revoked.replace_own({"here": SOON_S})
    async with running(sharing(shared, revoked)):
        await see(lambda: "here" in shared.revoked and shared._seen == shared.version)
        shared.revoked.clear()
        with trio.fail_after(READ_ANEW_EVERY_S * 3):
            while "here" not in shared.revoked:
                await trio.sleep(1)
        assert shared.read_anew >= 2


@pytest.mark.parametrize("fails_closed", [True, False])
async def test_a_server_that_cannot_be_asked_is_the_operators_choice(
    fails_closed: bool, mock_clock: MockClock
) -> None:
    mock_clock.rate = 50
    shared = FakeShared(there=SOON_S)
    revoked = known(is_shared=True, may_be_blind=not fails_closed)
    revoked.replace_own({})
    exchange = sharing(shared, revoked, fails_closed=fails_closed)
    log: Any = exchange._log
    async with running(exchange):
        await see(lambda: revoked.shared != {})
        shared.fails = True
        await trio.sleep(BLIND_AFTER_S / 2)
        assert not revoked.is_revoked("j-1")  # its last word holds for a while
        await trio.sleep(BLIND_AFTER_S)
        assert revoked.is_revoked("there")  # what is known stays known
        if fails_closed:
            with pytest.raises(NobodyKnowsError, match="not known now"):
                revoked.is_revoked("j-1")
        else:
            assert not revoked.is_revoked("j-1")
        shared.fails = False
        await trio.sleep(5)
        assert not revoked.is_revoked("j-1")
    assert [call.args[0] for call in log.calls] == [
        "jwt_redis_unavailable", "jwt_redis_unavailable", "jwt_redis_available"
    ]  # fmt: skip
