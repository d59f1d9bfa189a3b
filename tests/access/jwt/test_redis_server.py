"""The exchange with a real Redis-compatible server, where one is installed."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rbee.errors import ConfigError
from rbee.supervisor.access.jwt.redis_server import SharedRevocations
from rbee.supervisor.access.jwt.revoked import SharedUnavailableError
from tests.access.jwt.issuer import ISSUER, config

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
NOW_S = int(time.time())
PASSWORD = "a password that nobody guesses"

needs_server = pytest.mark.skipif(
    PROGRAM is None, reason="neither redis-server nor valkey-server is installed"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on loopback, with a password, that writes nothing to the disk."""
    assert PROGRAM is not None
    folder = tmp_path_factory.mktemp("redis")
    port = _free_port()
    settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(
        [PROGRAM, *settings, "--requirepass", PASSWORD], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        assert any("eady to accept connections" in line for line in server.stdout)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


def shared(url: str, password_file: Path, issuer: str = ISSUER) -> SharedRevocations:
    return SharedRevocations(
        config(issuer=issuer, redis_url=url, redis_password_file=str(password_file))
    )


@needs_server
def test_what_one_box_revokes_another_reads(url: str, password_file: Path) -> None:
    one, other = shared(url, password_file), shared(url, password_file)
    foreign = shared(url, password_file, "https://else.example")
    assert other.read(NOW_S) == {}
    assert other.read(NOW_S) is None  # nothing has changed
    one.add({"j-1": NOW_S + 60, "j-2": NOW_S + 1}, NOW_S)
    assert other.read(NOW_S) == {"j-1": NOW_S + 60, "j-2": NOW_S + 1}
    assert other.read(NOW_S) is None
    assert other.read(NOW_S + 1, anew=True) == {"j-1": NOW_S + 60}  # the other has expired
    one.add({"j-1": NOW_S + 30, "j-3": NOW_S + 90}, NOW_S + 5)
    assert other.read(NOW_S) == {"j-1": NOW_S + 60, "j-3": NOW_S + 90}  # the later expiry wins
    assert foreign.read(NOW_S) == {}
    for each in (one, other, foreign):
        each.close()


@needs_server
def test_another_program_may_add_to_it(url: str, password_file: Path) -> None:
    ours: Any = shared(url, password_file, "https://third.example")
    assert ours.read(NOW_S) == {}
    ours._redis.zadd("rbee:revoked:https://third.example", {"j-9": NOW_S + 60.7})
    assert ours.read(NOW_S, anew=True) == {"j-9": NOW_S + 60}
    ours._redis.set("rbee:revoked:https://third.example", "of another kind")
    with pytest.raises(SharedUnavailableError, match="WRONGTYPE"):
        ours.read(NOW_S, anew=True)
    ours.close()


@needs_server
def test_a_password_that_is_wrong_is_told_and_not_shown(url: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    path.write_text("canary-4711\n")
    path.chmod(0o600)
    with pytest.raises(SharedUnavailableError) as caught:
        shared(url, path).read(NOW_S)
    assert "canary" not in str(caught.value)


def test_a_server_that_is_not_there_is_told(password_file: Path) -> None:
    ours = shared("redis://127.0.0.1:1/0", password_file)
    with pytest.raises(SharedUnavailableError, match="ConnectionError"):
        ours.read(NOW_S)
    with pytest.raises(SharedUnavailableError, match="ConnectionError"):
        ours.add({"j-1": NOW_S + 9}, NOW_S)
    ours.close()


def test_a_password_that_others_can_read_is_refused(password_file: Path) -> None:
    password_file.chmod(0o644)
    with pytest.raises(ConfigError, match="secret file"):
        shared("redis://127.0.0.1:1/0", password_file)
