"""A worker that cannot wholly become the user it should be does not go on."""

import errno
import os

import pytest

from rbee.engine import own_user
from rbee.engine.own_user import OwnUser, become, why_unreadable
from rbee.errors import EngineError, ExitCode

OTHER = OwnUser(name="other", uid=54321, gid=54321, groups=(54321,), home="/nowhere")
CHANGES = ("setgroups", "setresgid", "setresuid")


def refused() -> EngineError:
    with pytest.raises(EngineError) as caught:
        become(OTHER)
    assert caught.value.exit_code is ExitCode.CONFIG
    return caught.value


@pytest.fixture
def _nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says that it has done it, and has not."""
    for name in CHANGES:
        monkeypatch.setattr(os, name, lambda *_: None)


@pytest.mark.parametrize("refusing", CHANGES)
@pytest.mark.usefixtures("_nothing_changes")
def test_what_the_system_refuses_ends_it(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, refusing, refuse)
    assert str(refused()) == "the worker cannot become user other: Operation not permitted"


@pytest.mark.usefixtures("_nothing_changes")
def test_it_looks_whether_anything_is_left() -> None:
    home = os.environ.get("HOME")
    found = " ".join([str(os.geteuid())] * 4)
    assert str(refused()) == f"the worker did not wholly become user other: Uid is {found}"
    assert os.environ.get("HOME") == home


@pytest.mark.usefixtures("_nothing_changes")
def test_a_python_that_the_user_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_user, "_left_over", lambda _: "")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert str(refused()).startswith(f"user other cannot read {os.__file__}: install Python")


def test_a_file_that_is_closed_to_us_is_told_with_our_uid() -> None:
    closed = PermissionError(errno.EACCES, "Permission denied")
    assert why_unreadable(closed) == f"Permission denied for uid {os.geteuid()}"
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert why_unreadable(gone) == "No such file or directory"
