"""What commands do to keys and JWTs is recorded exactly once, whether a server runs or not."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rbee.audit.lock import Office
from rbee.audit.opening import open_audit, seal_key
from rbee.audit.place import place_in
from rbee.cli import command_records
from rbee.cli.app import run_command
from rbee.cli.endings import exit_code_of
from rbee.config import AuditConfig
from rbee.errors import AuditError
from rbee.store import KeyRow, open_store
from rbee.supervisor.access.instant import rfc_3339
from tests.access.jwt.issuer import ISSUER, write_key_set
from tests.api.face import LogLines
from tests.audit.log import entries, good, raw_lines
from tests.cli.running import run_rbee
from tests.e2e.server import serving, synthetic_config

ACTOR = f"operator:{os.geteuid()}"


def config_in(folder: Path, audit: str = "") -> Path:
    path = folder / "rbee.toml"
    path.write_text(f'[server]\nstate_dir = "{folder / "state"}"\n[audit]\n{audit}\n')
    return path


def create(config: Path, *more: str) -> int:
    return run_command(["keys", "create", "--role", "user", *more, "--config", str(config)])


def rows(folder: Path) -> list[KeyRow]:
    store = open_store(folder / "state" / "rbee.db")
    assert store is not None
    with store:
        return store.keys.all()


def deeds(folder: Path) -> list[tuple[str, str, str]]:
    """Event, key and actor of what was done to keys."""
    told: list[dict[str, Any]] = entries(place_in(folder / "state"))
    found = [each for each in told if each["event"].startswith("key.")]
    return [(each["event"], each["details"]["key"], each["actor"]) for each in found]


def test_without_a_server_commands_record_what_they_do(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    done = run_rbee("init", "--config", str(config))
    assert done.returncode == 0, done.stderr
    [admin] = rows(tmp_path)
    assert run_rbee("keys", "rotate", admin.id, "--config", str(config)).returncode == 0
    [successor] = [row for row in rows(tmp_path) if row.id != admin.id]
    for _ in range(2):
        revoke = ["keys", "revoke", successor.id, "--reason", "lost", "--config", str(config)]
        assert run_rbee(*revoke).returncode == 0
    assert deeds(tmp_path) == [
        ("key.created", admin.id, ACTOR),
        ("key.created", successor.id, ACTOR),
        ("key.revoked", admin.id, ACTOR),
        ("key.revoked", successor.id, ACTOR),
    ]
    reasons = [each["details"].get("reason") for each in entries(place_in(tmp_path / "state"))]
    assert reasons[2:] == [f"rotated to {successor.id}; good for 0 s more", "lost"]
    assert good(place_in(tmp_path / "state")).witnessed_seq == 4


def test_with_a_server_it_records_them_and_before_and_after_it_commands_do(tmp_path: Path) -> None:
    state = f'[server]\nstate_dir = "{tmp_path / "state"}"\n'
    config = tmp_path / "rbee.toml"
    config.write_text(text := synthetic_config(head=state))
    create(config)
    with serving(tmp_path, text) as server:
        create(config)
        second = rows(tmp_path)[-1].id
        run_command(["keys", "revoke", second, "--config", str(config)])
        first = rows(tmp_path)[0].id
        run_command(["keys", "rotate", first, "--grace", "1h", "--config", str(config)])
        [third] = {row.id for row in rows(tmp_path)} - {first, second}
        recorded = deeds(tmp_path)
        assert len(recorded) == 5, "before the command ends"
        assert {each[:2] for each in recorded[3:]} == {
            ("key.created", third), ("key.revoked", first),
        }  # fmt: skip
        assert server.stop() == 0
    assert deeds(tmp_path) == recorded, "once"
    run_command(["keys", "revoke", first, "--config", str(config)])
    assert deeds(tmp_path) == [*recorded, ("key.revoked", first, ACTOR)]
    good(place_in(tmp_path / "state"))


def revoked_jwts(folder: Path) -> list[tuple[str, str]]:
    """The id and the actor of each."""
    told: list[dict[str, Any]] = entries(place_in(folder / "state"))
    found = [each for each in told if each["event"] == "jwt.revoked"]
    return [(each["details"]["jti"], each["actor"]) for each in found]


def test_a_jwt_that_a_command_revokes_is_recorded_once_with_a_server_or_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, config = tmp_path / "keys.json", tmp_path / "rbee.toml"
    write_key_set(keys)
    head = (
        f'[server]\nstate_dir = "{tmp_path / "state"}"\n'
        f'[jwt]\nissuer = "{ISSUER}"\naudience = "rbee"\njwks_file = "{keys}"\n'
    )
    config.write_text(text := synthetic_config(head=head))
    odd, soon = 'a"b', ("--expires", rfc_3339(int(time.time()) + 600))

    def revoke(jti: str, *more: str) -> int:
        return run_command(["jwt", "revoke", jti, *more, "--config", str(config)])

    revoke("first")
    with serving(tmp_path, text) as server:
        revoke(odd)
        assert revoked_jwts(tmp_path) == [("first", ACTOR), (odd, ACTOR)], "before it ends"
        revoke("past", "--expires", "2001-01-01T00:00:00Z")
        assert server.stop() == 0
    revoke("after")
    monkeypatch.setattr(command_records, "SERVER_TIMEOUT_S", 0.1)
    with held_office(tmp_path, until=lambda: False):
        with pytest.raises(AuditError, match="the server has not done so within"):
            revoke("unheard", *soon)
        revoke("unheard", *soon)
    assert revoked_jwts(tmp_path) == [(each, ACTOR) for each in ("first", odd, "after")]
    told = capsys.readouterr().out
    assert "past: has expired by itself" in told
    assert "unheard: was revoked before" in told, "what is refused already stays refused"
    good(place_in(tmp_path / "state"))


def test_a_sealed_log_takes_the_secret_of_the_configuration_and_no_other(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one")
    secret.chmod(0o600)
    config = config_in(tmp_path, f'secret_file = "{secret}"')
    create(config)
    place = place_in(tmp_path / "state")
    assert good(place, [seal_key(secret)]).sealed == 1
    before = raw_lines(place)
    with pytest.raises(AuditError, match="another secret than ours"):
        create(config_in(tmp_path))
    secret.unlink()
    with pytest.raises(AuditError, match="cannot be opened"):
        create(config_in(tmp_path, f'secret_file = "{secret}"'))
    assert raw_lines(place) == before
    assert len(rows(tmp_path)) == 1, "what is not recorded is not done"


def test_what_cannot_be_recorded_is_done_only_if_the_configuration_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "audit").touch()  # no folder
    with pytest.raises(AuditError, match=r"key\.created is not in the audit log") as caught:
        create(config_in(tmp_path))
    assert exit_code_of(caught.value) == 74
    assert rows(tmp_path) == []
    assert capsys.readouterr().out == ""
    create(config_in(tmp_path, 'on_failure = "open"'))
    assert len(rows(tmp_path)) == 1
    assert capsys.readouterr().err.count("is not in the audit log") == 1
    create(config_in(tmp_path, "enabled = false"))
    assert len(rows(tmp_path)) == 2


@contextlib.contextmanager
def held_office(folder: Path, *, until: Callable[[], bool]) -> Iterator[None]:
    """A server that has the office, and records nothing; it ends when something has happened."""
    office, is_over = Office(place_in(folder / "state").folder), threading.Event()
    assert office.take()

    def wait() -> None:
        while not until() and not is_over.wait(0.01):
            pass
        office.close()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_server_that_ends_before_it_has_recorded_it_leaves_it_to_the_command(
    tmp_path: Path,
) -> None:
    config = config_in(tmp_path)
    with held_office(tmp_path, until=lambda: bool(rows(tmp_path))):
        create(config)
    assert deeds(tmp_path) == [("key.created", rows(tmp_path)[0].id, ACTOR)]


def test_a_server_that_does_not_record_it_has_the_key_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_records, "SERVER_TIMEOUT_S", 0.1)
    config = config_in(tmp_path)
    with held_office(tmp_path, until=lambda: False):
        with pytest.raises(AuditError, match="the server has not done so within"):
            create(config, "--key-file", str(tmp_path / "key"))
        assert not (tmp_path / "key").exists()
        [row] = rows(tmp_path)
        assert row.revoked_for == "its making was not recorded"
        create(config_in(tmp_path, 'on_failure = "open"'))
        assert len(capsys.readouterr().out.split()) == 1
        [old] = [row for row in rows(tmp_path) if row.revoked_s is None]
        with pytest.raises(AuditError):
            run_command(["keys", "rotate", old.id, "--config", str(config_in(tmp_path))])
        assert [row for row in rows(tmp_path) if row.revoked_s is None] == [old], "as it was"


def test_of_two_servers_one_records_for_commands_and_without_a_folder_none(tmp_path: Path) -> None:
    config, log = AuditConfig(), LogLines()
    with open_audit(config, place_in(tmp_path), log) as first:
        assert first.records_commands
        with open_audit(config, place_in(tmp_path), log) as second:
            assert not second.records_commands
    with open_audit(config, place_in(tmp_path), log) as third:
        assert third.records_commands
    (tmp_path / "file").touch()
    with open_audit(config, place_in(tmp_path / "file"), log) as homeless:
        assert not homeless.records_commands
