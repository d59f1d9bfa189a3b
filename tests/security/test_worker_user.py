"""`[worker] user`: what a worker has left, as the kernel tells it, and that all goes on with it."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

import rbee
from rbee.supervisor.catalogue import BEE_TINY
from rbee.supervisor.worker_user import NEEDED
from tests.e2e.server import Server, is_running, synthetic_config, wait_until
from tests.supervisor.held import need

USER: Final = "nobody"
NOBODY: Final = pwd.getpwnam(USER)
ROOTS: Final = Path(rbee.__file__).parents[1]
PACKAGES: Final = Path(pytest.__file__).parents[1]

CLOSED_MODEL: Final = """
[[model]]
ref = "file:{path}"
name = "closed"
"""


def is_open(path: Path) -> bool:
    """Whether that user may read it."""
    done = subprocess.run(
        ["test", "-r", str(path)], user=USER, group=NOBODY.pw_gid, extra_groups=[], check=False
    )
    return done.returncode == 0


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users may enter."""
    need(os.geteuid() == 0, "root, who may become another user")
    with tempfile.TemporaryDirectory(prefix="rbee-user-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def open_python(place: Path) -> str:
    """A Python with our packages that other users may run: this one, or the system's."""
    own = Path(sys.executable)
    if is_open(Path(os.__file__)) and is_open(PACKAGES):
        return str(own)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = shutil.which(version, path="/usr/bin:/usr/local/bin")
    need(
        system is not None and is_open(PACKAGES / "zmq") and is_open(ROOTS / "rbee"),
        f"{version} with our packages that other users may read",
    )
    made = place / "python"
    subprocess.run([str(system), "-m", "venv", "--without-pip", str(made)], check=True)
    packages = made / "lib" / version / "site-packages"
    (packages / "rbee.pth").write_text(f"{PACKAGES}\n{ROOTS}\n")
    return str(made / "bin" / "python")


def config(*, model: str = "", synthetic: str = "") -> str:
    head = f'[worker]\nuser = "{USER}"\n[restart]\ndelay_s_min = 0\n'
    return synthetic_config(head=head, model=model, synthetic=synthetic)


@pytest.fixture(scope="module")
def server(place: Path, open_python: str) -> Iterator[Server]:
    """Two workers, and a third that may not read its model."""
    closed = place / "closed.gguf"
    shutil.copyfile(BEE_TINY, closed)
    closed.chmod(0o600)
    text = config(model="slots = 2") + CLOSED_MODEL.format(path=closed)
    server = Server(place, text, python=open_python)
    try:
        yield server.ready()
    finally:
        server.close()


def worker(server: Server, slot: str) -> dict[str, Any]:
    return next(each for each in server.workers() if each["slot"] == slot)


def statuses(pid: int) -> list[dict[str, list[str]]]:
    """Of each of its threads."""
    read = [
        path.joinpath("status").read_text("utf-8").splitlines()
        for path in Path(f"/proc/{pid}/task").iterdir()
    ]
    parted = [[line.partition(":") for line in each] for each in read]
    return [{key: value.split() for key, _, value in each} for each in parted]


def expect_user(pid: int) -> None:
    threads = statuses(pid)
    assert len(threads) >= 4, "libzmq's are among them"
    for each in threads:
        assert each["Uid"] == [str(NOBODY.pw_uid)] * 4
        assert each["Gid"] == [str(NOBODY.pw_gid)] * 4
        assert set(each["Groups"]) == set(map(str, os.getgrouplist(USER, NOBODY.pw_gid)))
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(each[kind][0], 16) == 0
        assert each["NoNewPrivs"] == ["1"]


def test_every_thread_of_a_worker_is_that_user_without_a_right_of_root(server: Server) -> None:
    for pid in server.worker_pids():
        expect_user(pid)
    for each in statuses(server.pid):
        assert each["Uid"] == ["0"] * 4


def test_a_worker_is_not_looked_into_by_others_of_its_user(server: Server) -> None:
    assert is_open(Path("/proc/self/environ")), "that user may look into what is its own"
    for pid in server.worker_pids():
        assert not is_open(Path(f"/proc/{pid}/environ"))


def test_requests_are_answered(server: Server) -> None:
    answer = server.chat("good day", max_tokens=5)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 5


def test_a_model_that_is_closed_to_the_user_is_refused_with_the_file_and_the_uid(
    server: Server,
) -> None:
    wait_until(lambda: worker(server, "closed-0")["state"] == "failed", 30, "the refusal")
    told = worker(server, "closed-0")["last_failure"]
    assert "closed.gguf cannot be read" in told
    assert f"Permission denied for uid {NOBODY.pw_uid}" in told


def test_a_worker_that_is_killed_is_replaced_by_another_of_that_user(server: Server) -> None:
    first = worker(server, "synthetic-0")["pid"]
    os.kill(first, signal.SIGKILL)

    def is_replaced() -> bool:
        now = worker(server, "synthetic-0")
        return now["pid"] not in (first, None) and now["state"] == "ready"

    wait_until(is_replaced, 30, "another worker")
    expect_user(worker(server, "synthetic-0")["pid"])


def children(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def test_workers_die_with_their_supervisor_and_the_warden_ends_what_they_left(
    place: Path, open_python: str
) -> None:
    folder = place / "dying"
    folder.mkdir()
    # The supervisor has no right either but those that it asks for.
    need(shutil.which("setpriv"), "setpriv, which lays down rights")
    kept = ",".join(f"+{right.removeprefix('CAP_').lower()}" for right in NEEDED)
    through = ["setpriv", f"--bounding-set=-all,{kept}"]
    text = config(synthetic='fault = "stray_child"')
    server = Server(folder, text, python=open_python, through=through)
    try:
        [pid] = server.ready().worker_pids()
        # The stray, once the process that has made it is reaped; the worker; the warden.
        wait_until(lambda: len(children(server)) == 3, 10, "a stray that is settled")
        warden = next(
            each for each in children(server) if "rbee.supervisor.warden" in each.cmdline()
        )
        [stray] = [each for each in children(server) if each.pid not in (pid, warden.pid)]
        assert stray.uids().real == NOBODY.pw_uid
        # Stopped, one does not see the end of its pipe, and the other does not sweep.
        for stopped in (pid, warden.pid):
            os.kill(stopped, signal.SIGSTOP)
        server.process.kill()
        wait_until(lambda: not is_running(pid), 10, "the worker's end, by PDEATHSIG")
        os.kill(warden.pid, signal.SIGCONT)
        wait_until(lambda: not is_running(stray.pid), 10, "the end of what it has started")
        wait_until(lambda: not is_running(warden.pid), 10, "the warden's end")
    finally:
        server.close()
