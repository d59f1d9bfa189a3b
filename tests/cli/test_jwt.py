"""`rbee jwt`: revocations in the store, without a server."""

import json
from pathlib import Path

import pytest

from rbee.errors import ExitCode
from tests.access.jwt.issuer import ISSUER
from tests.cli.running import run_rbee


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rbee.toml").write_text(
        f'[server]\nstate_dir = "{tmp_path / "state"}"\n'
        f'[jwt]\nissuer = "{ISSUER}"\naudience = "rbee"\njwks_file = "/keys.json"\n'
    )
    return tmp_path


def test_what_is_revoked_is_listed_until_it_expires(folder: Path) -> None:
    assert run_rbee("jwt", "list", cwd=folder).stdout == "no JWT is revoked\n"
    done = run_rbee("jwt", "revoke", "j-1", cwd=folder)
    assert (done.returncode, done.stdout[:26]) == (0, "j-1: revoked; kept until 2")
    assert run_rbee("jwt", "revoke", "j-2", "--expires", "2001-01-01T00:00:00Z", cwd=folder)
    listed = json.loads(run_rbee("jwt", "list", "--json", cwd=folder).stdout)["revocations"]
    assert [each["jti"] for each in listed] == ["j-1"]
    assert "j-1" in run_rbee("jwt", "list", cwd=folder).stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("revoke", "a b"), "JTI must be 1 to 256 visible"),
        (("revoke", "j-1", "--expires", "tomorrow"), "--expires must be a time"),
    ],
)
def test_what_is_no_jti_and_no_time_is_refused(
    folder: Path, arguments: tuple[str, ...], problem: str
) -> None:
    done = run_rbee("jwt", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert problem in done.stderr


def test_without_an_issuer_there_is_nothing_to_revoke(tmp_path: Path) -> None:
    done = run_rbee("jwt", "revoke", "j-1", cwd=tmp_path)
    assert done.returncode == ExitCode.CONFIG
    assert "jwt.issuer is not set" in done.stderr
