"""Whom workers may become, as the supervisor looks it up at its start."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rbee.errors import ConfigError
from rbee.supervisor import worker_user
from rbee.supervisor.worker_user import find_user, rights_problem, user_to_become
from tests.supervisor.held import need

NOBODY = pwd.getpwnam("nobody")


def test_a_name_and_its_uid_are_the_same_user() -> None:
    user = find_user("nobody")
    assert user == find_user(str(NOBODY.pw_uid))
    assert user is not None
    assert (user.name, user.uid, user.gid) == ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert set(user.groups) == set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert user.home == NOBODY.pw_dir
    assert find_user("") is None


@pytest.mark.parametrize("named", ["nobody-here", "4294967294", "9" * 200, "-1", "\u0663"])
def test_who_is_not_there_is_named(named: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no user {named!r} on this machine"):
        find_user(named)


@pytest.mark.parametrize("named", ["root", "0"])
def test_root_is_no_user_for_workers(named: str) -> None:
    with pytest.raises(ConfigError, match="must be another than root"):
        find_user(named)


def test_what_is_told_to_a_worker_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_user, "GROUPS_MAX", 0)
    with pytest.raises(ConfigError, match="may be in 0 groups at most"):
        find_user("nobody")


def test_who_is_not_root_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert rights_problem() == "only root may do that, and this is uid 1000"
    with pytest.raises(ConfigError, match=r"this is uid 1000; start rbee serve as root, or name"):
        user_to_become("nobody")
    assert user_to_become("") is None


@pytest.mark.parametrize("right", worker_user.NEEDED)
def test_a_root_that_may_not_do_all_of_it_does_not_start(right: str, tmp_path: Path) -> None:
    need(os.geteuid() == 0 and shutil.which("setpriv"), "root, who lays down rights by setpriv")
    lowered = ["setpriv", f"--bounding-set=-{right.removeprefix('CAP_').lower()}"]
    program = "from rbee.supervisor.worker_user import user_to_become; user_to_become('nobody')"
    done = subprocess.run(
        [*lowered, sys.executable, "-c", program],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert f"worker.user = 'nobody': root lacks {right} here" in done.stderr
