"""`rbee status` and `rbee workers`, against a real server, and the table they show."""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from rbee.cli.server import WorkerRow, worker_rows
from rbee.cli.worker_table import aligned, bytes_text, duration_text, make_table, remarks
from rbee.errors import ExitCode
from rbee.supervisor.api.ports import WorkerView
from tests.cli.answering import Answers, serving, worker
from tests.cli.running import COMMAND, TIMEOUT_S, on_terminal, run_rbee


def test_status_on_a_pipe_is_an_aligned_table(tmp_path: Path) -> None:
    with serving(Answers()) as url:
        done = run_rbee("status", "--url", url, cwd=tmp_path)
        listed = run_rbee("workers", "list", "--url", url, cwd=tmp_path)
    assert done.returncode == 0
    titles, first, second, empty, summary = done.stdout.splitlines()
    assert titles.split() == [
        "SLOT", "MODEL", "ENGINE", "STATE", "PID", "PHASE", "REQUESTS", "TOKENS", "BEAT",
        "RESTARTS", "MEMORY", "UPTIME",
    ]  # fmt: skip
    assert first.split() == [
        "bee-tiny-0", "bee-tiny", "llamacpp", "ready", "4242", "decode", "2/8", "6543", "0.5s", "1",
        "416", "MiB", "2m05s",
    ]  # fmt: skip
    assert second.index("4243") == titles.index("PID") - 1  # numbers end where their title ends
    assert (empty, summary) == ("", f"{url}: ok; 3 requests wait")
    assert listed.stdout == done.stdout


def test_status_tells_not_ready_by_its_exit_code_and_why(tmp_path: Path) -> None:
    answers = Answers()
    answers.readiness = "unavailable"
    answers.workers = [
        worker("a-0", state="waiting", last_failure="exit code 81", retry_in_s=1.94, pid=None)
    ]
    with serving(answers) as url:
        done = run_rbee("status", "--url", url, cwd=tmp_path)
    assert done.returncode == 1
    assert "a-0 is waiting: exit code 81; next try in 1.9 s" in done.stdout
    assert f"{url}: unavailable" in done.stdout


def test_status_as_json_holds_all_that_the_server_said(tmp_path: Path) -> None:
    answers = Answers()
    answers.workers = [worker("a-0", state="\x1b[31mred", later_field=1)]
    with serving(answers) as url:
        done = run_rbee("status", "--json", "--url", url, cwd=tmp_path)
    assert "\x1b" not in done.stdout
    assert json.loads(done.stdout) == {
        "url": url, "readiness": "ok", "workers": answers.workers, "queued": 3,
    }  # fmt: skip


def test_status_of_a_strange_server_is_an_error(tmp_path: Path) -> None:
    answers = Answers()
    answers.workers = [{"name": "no slot"}]
    with serving(answers) as url:
        done = run_rbee("status", "--url", url, cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "the server's workers are of another kind" in done.stderr


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("uptime_s", "1e999"), ("uptime_s", "NaN"), ("uptime_s", "-Infinity"),
        ("rss_bytes", "9" * 400), ("rss_bytes", "9" * 5000), ("rss_bytes", "-1"),
        ("vram_bytes", "9" * 400), ("retry_in_s", "1e999"),
    ],
    ids=lambda text: text[:10],
)  # fmt: skip
def test_a_number_that_cannot_be_is_no_bug_of_ours(tmp_path: Path, field: str, number: str) -> None:
    answers = Answers()
    answers.workers = [worker("a-0", **{field: "number"})]
    answers.raw = ('"number"', number)
    with serving(answers) as url:
        done = run_rbee("status", "--url", url, cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "does not answer as rbee does" in done.stderr or "of another kind" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_on_a_narrow_terminal_keeps_slot_and_state(tmp_path: Path) -> None:
    with (
        serving(Answers()) as url,
        on_terminal("status", "--url", url, cwd=tmp_path, columns=40) as terminal,
    ):
        assert terminal.wait_end() == 0
    titles = terminal.shown.splitlines()[0]
    assert titles.split()[:2] == ["SLOT", "STATE"]
    assert len(titles) <= 40


def test_watch_on_a_terminal_survives_the_server_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url:
        port = int(url.rpartition(":")[2])
    with on_terminal("status", "--watch", "--url", url, cwd=tmp_path) as terminal:
        terminal.wait_for("no rbee server answers")
        with serving(answers, port):
            terminal.wait_for("bee-tiny-1")
        terminal.wait_for("no rbee server answers")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.wait_end() == 130
        assert "Traceback" not in terminal.shown


def test_watch_as_json_writes_one_line_for_each_look(tmp_path: Path) -> None:
    with serving(Answers()) as url:
        child = subprocess.Popen(
            [*COMMAND, "status", "--watch", "--json", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        with contextlib.ExitStack() as stack:
            stack.callback(child.communicate)
            stack.callback(child.kill)
            looks = [json.loads(_line(child)) for _ in range(2)]
            child.send_signal(signal.SIGINT)
            assert child.wait(TIMEOUT_S) == 130
            assert child.stderr is not None
            assert child.stderr.read() == b""
    assert [look["readiness"] for look in looks] == ["ok", "ok"]


def _line(child: "subprocess.Popen[bytes]") -> bytes:
    assert child.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([child.stdout], [], [], TIMEOUT_S)[0], "no line came"
        byte = os.read(child.stdout.fileno(), 1)
        assert byte, "the command ended"
        line += byte
    return line


@pytest.mark.parametrize("command", ["restart", "stop"])
def test_workers_are_ordered_by_their_slot(command: str, tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url:
        done = run_rbee("workers", command, "bee-tiny-1", "--url", url, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"bee-tiny-1: {command} asked for")
    assert answers.posts == [f"/v1/rbee/workers/bee-tiny-1/{command}"]


@pytest.mark.parametrize("slot", ["bee-tiny-7", "../models", "A\x1b"])
def test_unknown_slot_is_an_error_that_lists_the_slots(slot: str, tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url:
        done = run_rbee("workers", "restart", slot, "--url", url, cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.endswith("; slots are: bee-tiny-0, bee-tiny-1\n")
    assert answers.posts == []


def test_row_holds_only_what_the_supervisor_shows() -> None:
    shown = {field.name for field in dataclasses.fields(WorkerView)}
    assert {field.name for field in msgspec.structs.fields(WorkerRow)} <= shown


def test_row_of_another_version_is_shown_with_gaps() -> None:
    rows = worker_rows({"workers": [{"slot": "a-0", "new": True}]})
    titles, line = aligned(make_table(rows))
    assert line.split() == ["a-0", "-", "-", "-", "-", "-", "0", "0", "-", "0", "-", "-"]
    assert len(titles.split()) == len(line.split())


def test_table_shows_loading_and_video_memory() -> None:
    row = WorkerRow("a-0", phase="loading", progress=0.456, vram_bytes=12 * 1024**3)
    (line,) = aligned(make_table([row]))[1:]
    assert "loading 46%" in line
    assert "12.0 GiB" in line


def test_table_of_no_workers_has_its_titles() -> None:
    assert aligned(make_table([]))[0].split()[0] == "SLOT"


def test_table_holds_no_control_character() -> None:
    row = WorkerRow("a\x1b", last_failure="x\x1b\ny", state="failed")
    text = "".join([*aligned(make_table([row])), *remarks([row])])
    assert text.isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.9, "0s"), (59, "59s"), (425, "7m05s"), (11_520, "3h12m"), (792_000, "9d04h")],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (2048, "2 KiB"), (437 << 20, "437 MiB"), (80 << 30, "80.0 GiB")],
)
def test_sizes_are_short(count: int | None, text: str) -> None:
    assert bytes_text(count) == text


def test_a_gpu_what_waits_for_it_and_a_full_disk_are_told(tmp_path: Path) -> None:
    answers = Answers()
    gib = 1024**3
    answers.workers = [
        worker("a-0", vram_bytes=30 * gib, vram_reserved_bytes=40 * gib,
               held_by={"memory": "cgroup1", "cpus": "cgroup2"}),
        worker("a-1", state="waiting", pid=None, waits_for="it needs at least 50.00 GiB"),
    ]  # fmt: skip
    answers.box = {
        "gpus": [
            {"index": 0, "state": "hot", "problem": "too hot", "memory_total_bytes": 80 * gib,
             "memory_free_bytes": 20 * gib, "reserved_bytes": 40 * gib, "temperature_c": 91},
            {"index": 1, "state": "unknown", "problem": "no answer", "later_field": 1},
        ],
        "disks": [
            {"place": "state_dir", "state": "low", "problem": "1 of 9 bytes are free"},
            {"place": "run_dir", "state": "ok", "problem": ""},
        ],
    }  # fmt: skip
    with serving(answers) as url:
        shown = run_rbee("status", "--url", url, cwd=tmp_path).stdout
    titles, first, second = shown.splitlines()[:3]
    assert titles.index("VRAM") > 0
    assert "30.0 GiB / 40.0 GiB" in first
    assert "memory:cgroup1 cpus:cgroup2" in first
    assert second.rstrip().endswith("2m05s")
    assert "a-1 waits: it needs at least 50.00 GiB\n" in shown
    assert "GPU 0 is hot, 40.0 GiB of 80.0 GiB reserved, 20.0 GiB free, 91 C: too hot\n" in shown
    assert "GPU 1 is unknown, 0 B of 0 B reserved: no answer\n" in shown
    assert "state_dir is low: 1 of 9 bytes are free\n" in shown
    assert "run_dir" not in shown


def test_a_server_whose_gpus_are_of_another_kind_is_an_error(tmp_path: Path) -> None:
    answers = Answers()
    answers.box = {"gpus": [{"name": "no index"}]}
    with serving(answers) as url:
        done = run_rbee("status", "--url", url, cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "the server's GPUs are of another kind" in done.stderr
