"""What a worker's process may do, as the kernel tells it."""

import contextlib
import os
from pathlib import Path

from tests.e2e.server import Server


def test_a_worker_has_dropped_what_it_does_not_need(plain_server: Server) -> None:
    [pid] = plain_server.worker_pids()
    proc = Path(f"/proc/{pid}")
    status = dict(
        line.split(":\t", 1) for line in proc.joinpath("status").read_text("utf-8").splitlines()
        if ":\t" in line
    )  # fmt: skip
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0077"
    limits = proc.joinpath("limits").read_text("utf-8")
    [core] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
    assert str((proc / "cwd").readlink()) == "/"
    assert os.getsid(pid) == pid != os.getsid(plain_server.pid)


def descriptors(pid: int) -> set[str]:
    found = set[str]()
    if not os.access(f"/proc/{pid}/fd", os.R_OK):  # the server's, for all but root
        return found
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(path.readlink()))
    return found


def test_a_worker_inherits_no_descriptor_of_the_server(plain_server: Server) -> None:
    [pid] = plain_server.worker_pids()
    held = descriptors(pid)
    sockets = {each for each in held if each.startswith("socket:")}
    assert not sockets & descriptors(plain_server.pid)
    files = {each for each in held if each.startswith("/") and not each.startswith("/dev/")}
    assert not {each for each in files if "audit" in each or each.endswith((".db", "-wal", "lock"))}
