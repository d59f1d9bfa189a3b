"""What a process gives up: held by the kernel, and seen from outside."""

import json
import socket
import subprocess
import sys

import pytest

from rbee.hardening import landlock_problem

CHILD = """
import resource
from rbee import hardening
print(repr(hardening.forbid_looking_inside()), repr(hardening.forbid_new_rights()))
assert hardening.forbid_core_files() == ''
print(resource.getrlimit(resource.RLIMIT_CORE))
lines = open("/proc/self/status").read().splitlines()
print([line.split()[1] for line in lines if line.startswith("NoNewPrivs")])
import ctypes
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
"""


def test_all_of_it_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines() == ["'' ''", "(0, 0)", "['1']", "0"]


# What a process may do before and after it does what a worker does at its start.
WORKER = """
import json, os, socket, subprocess, sys
from rbee.engine.boot import _secure_process

earlier = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # ends with its pipe

def tried(action):
    try:
        action()
    except PermissionError:
        return False
    return True

def told():
    own = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    return {
        "connect": tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()),
        "listen": tried(lambda: socket.create_server(("127.0.0.1", 0)).close()),
        "signal": tried(lambda: os.kill(earlier.pid, 0)),
        "look inside": tried(lambda: open(f"/proc/{earlier.pid}/mem", "rb").close()),
        "signal its own": tried(lambda: own.kill()),
        "read files": tried(lambda: open("/proc/self/status").close()),
        "talk to the supervisor": tried(lambda: [each.close() for each in socket.socketpair()]),
    }

before = told()
_secure_process()
print(json.dumps([before, told()]))
"""


@pytest.mark.skipif(bool(landlock_problem()), reason=landlock_problem())
def test_a_worker_reaches_nobody_but_who_it_has_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = subprocess.run(
            [sys.executable, "-c", WORKER, str(listener.getsockname()[1])],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    before, after = json.loads(done.stdout)
    refused = {"connect", "listen", "signal", "look inside"}
    assert before == dict.fromkeys(before, True)
    assert after == {what: what not in refused for what in before}


def test_what_an_older_kernel_cannot_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if landlock_problem().startswith("no Landlock"):
        pytest.skip("there is none to be too old")
    monkeypatch.setattr("rbee.hardening._LANDLOCK_WITH_SIGNALS", 99)
    assert landlock_problem().endswith(("does not know signals", "does not know TCP"))
    monkeypatch.setattr("rbee.hardening._LANDLOCK_WITH_TCP", 99)
    assert landlock_problem().endswith("does not know TCP")
