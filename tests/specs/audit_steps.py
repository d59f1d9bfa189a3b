"""The steps of `specs/330-audit.feature`: what the command line finds in the files of a server."""

import hashlib
import itertools
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rbee.audit.files import log_files
from rbee.audit.place import Place, place_in
from tests.audit.log import entries, raw_lines
from tests.e2e.server import Server, synthetic_config, wait_until
from tests.specs.runner import Steps
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step

QUICK = "first_token_s = 0.0\n"
HALF = b'{"seq":77,"time":"2026-11-03T12:0'
SECRET = "a secret that nobody guesses\n"


def state_dir(world: World) -> Path:
    return world.directory / "state"


def place(world: World) -> Place:
    return place_in(state_dir(world))


def config(directory: Path, audit: str = "", server: str = "") -> str:
    head = f'[server]\nstate_dir = "{directory / "state"}"\n{server}\n[audit]\n{audit}\n'
    return synthetic_config(head=head, synthetic=QUICK)


def given(
    world: World, audit: str = "", server: str = "", *, through: tuple[str, ...] = ()
) -> None:
    world._config = config(world.directory, audit, server)
    world.start(through=through)


def ask(server: Server, prompt: str = "count", tokens: int = 3) -> httpx2.Response:
    body = {"model": "synthetic", "prompt": prompt, "max_tokens": tokens}
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    return answer


def command(*arguments: object) -> tuple[int, str]:
    """Run `rbee audit`, as an operator does."""
    words = [sys.executable, "-m", "rbee", "audit", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def found(folder: Path, *options: object) -> dict[str, Any] | None:
    """The first flaw of a log."""
    code, out = command("verify", folder, "--json", *options)
    flaw: dict[str, Any] | None = json.loads(out)["flaw"]
    assert code == (0 if flaw is None else 1)
    return flaw


@step(r"an audited server")
def given_audited(world: World) -> None:
    given(world)


@step(r"an audited server with the lane (on|off)")
def given_lane(world: World, lane: str) -> None:
    given(world, server=f"lane = {'true' if lane == 'on' else 'false'}")


@step(r"an audited server that does not drain")
def given_hasty(world: World) -> None:
    given(world, server="drain_s = 0")


@step(r"an audited server that keeps (\d+) files of at most (\d+) KiB")
def given_small_files(world: World, files: str, kib: str) -> None:
    given(world, f"files_max = {files}\nfile_bytes_max = {int(kib) * 1024}")


@step(r"the audited server is stopped")
def when_stopped(world: World) -> None:
    assert world.server.stop() == 0


@step(r"the audited server is started once more")
def when_started_again(world: World) -> None:
    world.start()


@step(r"the audit folder and its files are closed to all others")
def then_closed(world: World) -> None:
    assert stat.S_IMODE(place(world).folder.stat().st_mode) == 0o700
    files = [place(world).anchor, *place(world).folder.iterdir()]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@step(r'the audit log tells "(.+)", "(.+)" and "(.+)", in this order')
def then_events(world: World, *names: str) -> None:
    told = [entry["event"] for entry in entries(place(world))]
    assert [name for name in told if name in names] == list(names)


@step(r"the audit log is found good")
def then_good(world: World) -> None:
    assert found(place(world).folder) is None


@step(r'a request with the prompt "(.+)" is answered, and a health probe')
def when_asked(world: World, prompt: str) -> None:
    world.answer = ask(world.server, prompt)
    assert world.server.get("/health/live").status_code == 200


@step(r"the audit log tells the begin and the end of 1 request under the id that the client got")
def then_begin_and_end(world: World) -> None:
    assert world.answer is not None
    start, end = of_requests(world)
    assert start["event"] == "request.start"
    assert end["event"] == "request.end"
    for entry in (start, end):
        assert entry["correlation_id"] == world.answer.headers["x-correlation-id"]
        assert entry["details"]["route"] == "/v1/completions"
        assert entry["details"]["model"] == "synthetic"
        assert entry["outcome"] == "success"
    prompt = b'"the cat is in the bag"'
    assert start["details"]["prompt_bytes"] == len(prompt)
    assert start["details"]["prompt_sha256"] == hashlib.sha256(prompt).hexdigest()
    assert end["details"]["code"] == "ok"
    assert end["details"]["completion_tokens"] == 3


def of_requests(world: World) -> list[dict[str, Any]]:
    return [each for each in entries(place(world)) if each["event"].startswith("request.")]


@step(r'the audit log does not hold "(.+)", nor the answer')
def then_no_text(world: World, prompt: str) -> None:
    assert world.answer is not None
    text = world.answer.json()["choices"][0]["text"].strip()
    written = b"".join(raw_lines(place(world))).decode()
    assert prompt not in written
    assert text
    assert text not in written


@step(r"a request for a model that is not there is refused")
def when_refused(world: World) -> None:
    body = {"model": "nobody", "prompt": "count"}
    assert world.server.post("/v1/completions", body).status_code == 404


@step(r'the audit log tells that the request was denied as "(\w+)"')
def then_denied(world: World, code: str) -> None:
    end = of_requests(world)[-1]
    assert (end["event"], end["outcome"], end["details"]["code"]) == ("request.end", "denied", code)


@step(r'the audit log tells that the request failed as "(\w+)" after some tokens')
def then_failed(world: World, code: str) -> None:
    end = of_requests(world)[-1]
    assert (end["outcome"], end["details"]["code"]) == ("failure", code)
    assert end["details"]["completion_tokens"] > 0


@step(r"the audit log tells (\d+) starts of a server")
def then_starts(world: World, starts: str) -> None:
    told = [entry["event"] for entry in entries(place(world))]
    assert told.count("supervisor.start") == told.count("supervisor.stop") == int(starts)


@step(r"(\d+) requests are answered")
def when_answered(world: World, count: str) -> None:
    for _ in range(int(count)):
        ask(world.server)


@step(r"the audit log has (\d+) files and begins after entry 1")
def then_files(world: World, files: str) -> None:
    assert len(log_files(place(world).folder)) == int(files)
    assert entries(place(world))[0]["seq"] > 1


@step(r"half a line stands at the end of the audit log")
def when_torn(world: World) -> None:
    assert found(place(world).folder) is None  # killed, but at no bad moment
    with log_files(place(world).folder)[-1].open("ab") as file:
        file.write(HALF)


@step(r"the audit log is found torn at its end")
def then_torn(world: World) -> None:
    flaw = found(place(world).folder)
    assert flaw is not None
    assert flaw["kind"] == "torn"
    assert flaw["line"] == len(raw_lines(place(world)))


@step(r"the audit log tells the length and the hash of what was torn")
def then_repaired(world: World) -> None:
    [repaired] = [each for each in entries(place(world)) if each["event"] == "audit.repaired"]
    assert repaired["details"]["torn_bytes"] == len(HALF)
    assert repaired["details"]["torn_sha256"] == hashlib.sha256(HALF).hexdigest()


@step(r"an audited server whose audit log lies on a small disk")
def given_small_disk(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    disk = place(world).folder
    disk.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size=128k,mode=0700 tmpfs {disk} && exec "$@"'
    given(world, "sync_s = 0.1", through=("unshare", "-m", "sh", "-c", mount, "sh"))


def small_disk(world: World) -> Path:
    """As the server sees it: nobody else does."""
    return Path(f"/proc/{world.server.pid}/root{place(world).folder}")


@step(r"the disk of the audit log is filled, and (\d+) requests are answered")
def when_disk_filled(world: World, count: str) -> None:
    wait_until(lambda: bool(log_files(small_disk(world))), 5, "the audit log")
    with (small_disk(world) / "filler").open("wb", buffering=0) as file:
        for _ in itertools.count():
            try:
                file.write(bytes(4096))
            except OSError:
                break
    when_answered(world, count)


@step(r"there is room again on the disk of the audit log")
def when_room_again(world: World) -> None:
    (small_disk(world) / "filler").unlink()


@step(r"the audit log on the small disk is found good")
def then_small_disk_good(world: World) -> None:
    wait_until(lambda: found(small_disk(world)) is None, 5, "a good log")
    told = entries(place_in(small_disk(world).parent))
    assert len([each for each in told if each["event"] == "request.end"]) >= 50


@step(r"a second server with the same state is started")
def when_second(world: World) -> None:
    directory = world.directory / "second"
    directory.mkdir()
    world.second = Server(directory, config(world.directory)).ready()


@step(r"both servers answer (\d+) requests each at the same time")
def when_both_answer(world: World, count: str) -> None:
    assert world.second is not None

    def answer(server: Server) -> None:
        for _ in range(int(count)):
            ask(server)

    threads = [
        threading.Thread(target=answer, args=(each,)) for each in (world.server, world.second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@step(r"both servers are stopped")
def when_both_stopped(world: World) -> None:
    assert world.second is not None
    assert [world.server.stop(), world.second.stop()] == [0, 0]


@step(r"the audit log tells the begin and the end of (\d+) requests")
def then_requests(world: World, count: str) -> None:
    told = of_requests(world)
    for name in ("request.start", "request.end"):
        ids = {each["correlation_id"] for each in told if each["event"] == name}
        assert len(ids) == int(count)


@step(r"a secret file for the audit log that others may read")
def given_open_secret(world: World) -> None:
    secret = world.directory / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)


@step(r"a server is started with it")
def when_started_with_secret(world: World) -> None:
    text = config(world.directory, f'secret_file = "{world.directory / "secret"}"')
    world.second = Server(world.directory, text)
    world.second.process.wait(30)


@step(r"the audit log is found good while requests are answered")
def then_good_meanwhile(world: World) -> None:
    is_over = threading.Event()

    def keep_asking() -> None:
        while not is_over.is_set():
            ask(world.server)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        for _ in range(2):
            assert found(place(world).folder) is None
    finally:
        is_over.set()
        thread.join(30)


@step(r"the last entry is shown, and the entries of one kind are exported")
def then_shown(world: World) -> None:
    def ends() -> list[dict[str, Any]]:
        return [each for each in entries(place(world)) if each["event"] == "request.end"]

    begun = len([each for each in of_requests(world) if each["event"] == "request.start"])
    wait_until(lambda: len(ends()) >= max(begun, 20), 5, "the ends of all requests")
    code, out = command("tail", place(world).folder, "-n", "1")
    assert (code, ends()[-1]["correlation_id"] in out) == (0, True)
    code, out = command("export", place(world).folder, "--event", "request.end")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == ends()
