"""Which run directories a client goes to, and which process may: it brings a key and prompts."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rbee.client import Client, ForeignServerError, ServerGoneError
from rbee.client.place import is_trusted
from tests.e2e.server import Server

US, OTHER = 1000, 1001

FORKING = """
import os, sys
from rbee.client import Client, ClientError
with Client(sys.argv[1]) as client:
    stream = client.complete("a", model="synthetic", max_tokens=400, stream=True)
    next(stream)
    assert client.health() == "ok"
    child = os.fork()
    if child == 0:
        for call in client.health, stream.__next__:
            try:
                call()
            except ClientError as error:
                print(error, flush=True)
        stream.close()
        client.close()
        with Client(sys.argv[1]) as own:
            print(own.health(), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print([delta.text for delta in stream][-1].split()[-1], client.health())
"""


def folder(uid: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 0, 0, 0, uid, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("entry", "place", "us", "expected"),
    [
        (folder(US, 0o700), folder(US, 0o700), US, True),
        (folder(0, 0o755), folder(0, 0o755), US, True),
        (folder(OTHER, 0o700), folder(OTHER, 0o700), US, False),
        (folder(OTHER, 0o777), folder(US, 0o700), US, False),
        (folder(US, 0o770), folder(US, 0o770), US, False),
        (folder(US, 0o702), folder(US, 0o702), US, False),
        (folder(US, 0o700), folder(US, 0o700), 0, True),
        (folder(US, 0o702), folder(US, 0o702), 0, False),
    ],
    ids=[
        "ours", "roots", "anothers", "anothers-link", "our-groups", "everybodys",
        "root-goes-to-ours", "root-does-not-go-to-everybodys",
    ],
)  # fmt: skip
def test_a_folder_that_another_user_may_have_made_is_not_trusted(
    entry: os.stat_result, place: os.stat_result, us: int, expected: bool
) -> None:
    assert is_trusted(entry, place, us) is expected


def test_nothing_is_sent_to_a_server_that_may_be_anothers(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with Client(tmp_path) as client, pytest.raises(ForeignServerError, match="must belong"):
        client.health()


def test_a_place_that_cannot_be_looked_at_has_no_server(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Client(tmp_path / "file") as client, pytest.raises(ServerGoneError, match="no server"):
        client.health()


def test_a_client_is_of_the_process_that_made_it(server: Server) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FORKING, str(server.run_dir)],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    lines = told.stdout.splitlines()
    assert "made before a fork" in lines[0]
    assert "the parent's alone" in lines[1]
    assert lines[2:] == ["ok", "399 ok"]
    assert told.stderr == ""
