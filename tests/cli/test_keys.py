"""`rbee init`, `rbee keys`, and to whom commands show a key: through real processes."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from rbee.audit import place_in
from rbee.cli import address, listener
from rbee.cli.address import server_address
from rbee.cli.app import run_command
from rbee.cli.checks import secrecy
from rbee.cli.endings import OutputError, UsageError
from rbee.cli.options import At
from rbee.cli.server import Server
from rbee.config import Config, ServerConfig
from rbee.errors import ConfigError, ExitCode
from rbee.jwt_config import JwtConfig
from rbee.store import KeyRow, open_store
from rbee.supervisor.access.api_key import id_of, new_key
from tests.audit.log import entries
from tests.cli.answering import Answers, serving
from tests.cli.running import COMMAND, run_rbee


def keys(folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = run_rbee("keys", *arguments, "--state-dir", str(folder / "state"), cwd=folder)
    return done.returncode, done.stdout, done.stderr


def test_a_key_is_shown_once_listed_rotated_and_revoked(tmp_path: Path) -> None:
    code, shown, told = keys(
        tmp_path, "create", "--role", "user", "--name", "chat\u00fc", "--model", "bee-tiny",
        "--expires", "90d", "--requests-per-minute", "5",
    )  # fmt: skip
    key_id = id_of(shown.strip())
    assert (code, key_id is not None) == (0, True)
    assert told == f"{key_id}: user key; it is not shown again\n"
    code, listed, _ = keys(tmp_path, "list")
    assert code == 0
    assert shown.strip() not in listed
    titles, row = listed.splitlines()
    assert titles.split() == [
        "ID", "STATE", "ROLE", "NAME", "MODELS", "LIMITS", "CREATED", "EXPIRES", "MARK",
    ]  # fmt: skip
    assert row.split()[:6] == [
        key_id, "good", "user", "chat\u00fc", "bee-tiny", "requests_per_minute=5",
    ]  # fmt: skip
    code, rotated, _ = keys(tmp_path, "rotate", str(key_id), "--grace", "1h", "--json")
    made = json.loads(rotated)
    assert (code, id_of(made["key"])) == (0, made["id"])
    assert (made["role"], made["models"]) == ("user", ["bee-tiny"])
    code, told, _ = keys(tmp_path, "revoke", made["id"], "--reason", "lost")
    assert (code, told) == (0, f"{made['id']}: revoked\n")
    assert keys(tmp_path, "revoke", made["id"])[1] == f"{made['id']}: was revoked before\n"
    assert keys(tmp_path, "rotate", made["id"])[0] == ExitCode.USAGE
    _, listed, _ = keys(tmp_path, "list", "--json")
    states = {each["id"]: each["revoked_for"] for each in json.loads(listed)["keys"]}
    retired = f"rotated to {made['id']}; good for 3600 s more"
    assert states == {key_id: retired, made["id"]: "lost"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "--role", "king"], "Invalid value"),
        (["create", "--role", "user", "--expires", "soon"], "expires must be a time"),
        (["create", "--role", "user", "--expires", "0d", "--model", "a b"], "models must hold"),
        (["create", "--role", "user", "--tokens-per-minute", "0"], "limits.tokens_per_minute"),
        (["revoke", "abcdefgh"], "there is no key 'abcdefgh'"),
        (["rotate", "abcdefgh", "--grace", "100y"], "--grace must be like"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, arguments: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        run_command(["keys", *arguments, "--state-dir", str(tmp_path / "state")])


def test_init_writes_an_admin_key_for_its_owner_alone_and_never_over_another(
    tmp_path: Path,
) -> None:
    done = run_rbee("init", "--state-dir", str(tmp_path / "state"), cwd=tmp_path)
    path = tmp_path / "state" / "admin.key"
    assert done.returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_text("ascii").strip()
    assert key not in done.stdout + done.stderr
    again = run_rbee("init", "--state-dir", str(tmp_path / "state"), cwd=tmp_path)
    assert again.returncode == ExitCode.USAGE
    assert "is there already" in again.stderr
    store = open_store(tmp_path / "state" / "rbee.db")
    assert store is not None
    with store:
        assert [(row.id, row.role) for row in store.keys.all()] == [(id_of(key), "admin")]


def test_a_key_whose_file_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = ["keys", "create", "--role", "user", "--state-dir", str(tmp_path / "state")]
    with pytest.raises(OutputError, match="cannot be made: Not a directory"):
        run_command([*command, "--key-file", str(tmp_path / "file" / "below" / "key")])
    store = open_store(tmp_path / "state" / "rbee.db")
    assert store is not None
    with store:
        assert store.keys.all() == []


def test_a_new_key_that_nobody_was_shown_opens_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [*COMMAND, "keys", "create", "--role", "user", "--state-dir", str(state)]
    without_stdout = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    closed = subprocess.run(without_stdout, capture_output=True, check=False)
    assert (closed.returncode, b"cannot write to stdout" in closed.stderr) == (74, True)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 74
    assert [row.revoked_for for row in rows(state)] == ["it could not be handed out"] * 2
    told = [(each["event"], each["details"]["key"]) for each in entries(place_in(state))]
    ids = list(dict.fromkeys(key for _, key in told))
    assert told == [(event, key) for key in ids for event in ("key.created", "key.revoked")]
    assert sorted(ids) == sorted(row.id for row in rows(state))


def test_a_rotation_that_nobody_was_shown_leaves_the_old_key_and_no_other(tmp_path: Path) -> None:
    state = tmp_path / "state"
    run_command(["keys", "create", "--role", "user", "--state-dir", str(state)])
    [old] = rows(state)
    command = [*COMMAND, "keys", "rotate", old.id, "--state-dir", str(state)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 74
    assert {row.id: row for row in rows(state) if row.revoked_s is None} == {old.id: old}


def rows(state: Path) -> list[KeyRow]:
    store = open_store(state / "rbee.db")
    assert store is not None
    with store:
        return store.keys.all()


def test_a_store_that_is_open_to_others_is_an_error_with_a_code(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state" / "rbee.db")
    assert store is not None
    store.close()
    (tmp_path / "state" / "rbee.db").chmod(0o644)
    code, _, said = keys(tmp_path, "list")
    assert (code, "closed to others" in said) == (74, True)


def test_commands_show_the_key_of_a_file_or_that_of_init_to_servers_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state"
    monkeypatch.setattr("rbee.supervisor.crashes.default_state_dir", lambda: state)
    with serving(Answers()) as url:
        assert server_address(At(url=url)).key is None
        state.mkdir()
        key, other = new_key(), new_key()
        for path, each in ((state / "admin.key", key), (tmp_path / "other.key", other)):
            path.write_text(each.text + "\n")
            path.chmod(0o600)
        found = server_address(At(url=url)).key
        assert found is not None
        assert found.reveal().decode() == key.text
        found = server_address(At(url="https://box.example", key_file=tmp_path / "other.key")).key
        assert found is not None
        assert found.reveal().decode() == other.text
        assert server_address(At(url="https://box.example")).key is None
        monkeypatch.setattr("rbee.cli.listener.listener_uids", lambda _port: {os.geteuid() + 1})
        assert server_address(At(url=url)).key is None, "another user listens there"
    monkeypatch.undo()
    assert address.DEFAULT_URL.endswith("7233")


def test_who_listens_is_read_from_the_kernel() -> None:
    with serving(Answers()) as url:
        assert listener.listener_uids(int(url.rpartition(":")[2])) == {os.geteuid()}
    assert listener.listener_uids(1) == set()


@pytest.mark.parametrize("text", ["two words", "\u00fc", "tab\tbed"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError) as caught:
        Server(server_address(At(url="http://127.0.0.1:1", key_file=path)))
    assert text not in str(caught.value)


def test_a_key_that_cannot_be_written_to_its_file_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    state = tmp_path / "state"
    open_store(state / "rbee.db").close()  # type: ignore[union-attr]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        run_command(["init", "--state-dir", str(state)])
    assert not (state / "admin.key").exists()
    store = open_store(state / "rbee.db")
    assert store is not None
    with store:
        assert store.keys.all() == []


def test_a_configuration_for_other_machines_is_good_once_there_is_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, state = tmp_path / "rbee.toml", tmp_path / "state"
    text = f'[server]\nbind = "0.0.0.0:7233"\nstate_dir = "{state}"\n'
    file.write_text(text)
    with pytest.raises(ConfigError, match="no API key is there"):
        run_command(["config", "check", str(file)])
    assert not state.exists(), "to check makes nothing"
    run_command(["keys", "create", "--role", "user", "--config", str(file)])
    with pytest.raises(ConfigError, match="there is no TLS"):
        run_command(["config", "check", str(file)])
    file.write_text(text + "allow_plaintext = true\n")
    assert run_command(["config", "check", str(file)]) == 0
    assert "valid" in capsys.readouterr().out


def test_the_doctor_looks_at_the_keys(tmp_path: Path) -> None:
    config = Config(server=ServerConfig(state_dir=str(tmp_path)))
    assert secrecy.check_keys(config).verdict == "ok"
    run_command(["keys", "create", "--role", "user", "--state-dir", str(tmp_path)])
    assert secrecy.check_keys(config).found == "1 of 1 are good"
    store = open_store(tmp_path / "rbee.db")
    assert store is not None
    with store:
        store.keys.revoke(store.keys.all()[0].id, 5, "")
    jwt = JwtConfig(issuer="https://id.example", audience="rbee", jwks_file="jwks.json")
    assert secrecy.check_keys(Config(server=config.server, jwt=jwt)).verdict == "ok"
    found = secrecy.check_keys(config)
    assert (found.verdict, found.mend) == ("warn", "rbee init")
    (tmp_path / "rbee.db").chmod(0o644)
    assert "0600" in secrecy.check_keys(config).mend
    (tmp_path / "rbee.db").write_bytes(b"x" * 4096)
    (tmp_path / "rbee.db").chmod(0o600)
    assert secrecy.check_keys(config).verdict == "fail"
    assert "backup" in secrecy.check_keys(config).mend
