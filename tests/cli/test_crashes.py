"""`rbee crashes` and `rbee workers reset`, against a real server."""

import json
from pathlib import Path
from typing import Any

from rbee.errors import ExitCode
from tests.cli.answering import Answers, serving, worker
from tests.cli.running import run_rbee


def crash(number: int) -> dict[str, Any]:
    return {
        "id": f"20261123T14550{number}.000Z-m-0-{number}", "time": f"2026-11-23T14:55:0{number}Z",
        "slot": "m-0", "cause": "hang", "how": f"hung: no beat for {number} s",
        "beats": [{"age_s": 10.3, "phase": "decode"}], "requests": [], "gpus": None,
        "stacks": ["Current thread 0x1:", '  File "loop.py", line 1'],
        "lines": [{"time": "2026-11-23T14:55:00Z", "text": "it said \x1b[31mred"}],
    }  # fmt: skip


def test_crash_reports_are_listed_the_newest_first(tmp_path: Path) -> None:
    answers = Answers()
    answers.crashes = [crash(2), crash(1)]
    with serving(answers) as url:
        done = run_rbee("crashes", "list", "--url", url, cwd=tmp_path)
        as_json = run_rbee("crashes", "list", "--json", "--url", url, cwd=tmp_path)
    assert done.returncode == 0
    titles, first, second = done.stdout.splitlines()
    assert titles.split() == ["TIME", "SLOT", "CAUSE", "ID", "HOW"]
    assert crash(2)["id"] in first
    assert second.index("hung: no beat for 1 s") == titles.index("HOW")
    assert [each["id"] for each in json.loads(as_json.stdout)["crashes"]] == [
        crash(2)["id"], crash(1)["id"],
    ]  # fmt: skip


def test_a_crash_report_is_told_in_lines_that_command_no_terminal(tmp_path: Path) -> None:
    answers = Answers()
    answers.crashes = [crash(2), crash(1)]
    with serving(answers) as url:
        newest = run_rbee("crashes", "show", "--url", url, cwd=tmp_path)
        named = run_rbee("crashes", "show", crash(1)["id"], "--json", "--url", url, cwd=tmp_path)
    assert newest.returncode == 0
    assert "how             hung: no beat for 2 s" in newest.stdout
    assert '    File "loop.py", line 1' in newest.stdout
    assert "age_s=10.3  phase=decode" in newest.stdout
    assert "\x1b" not in newest.stdout
    assert json.loads(named.stdout) == crash(1)


def test_a_report_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url:
        none = run_rbee("crashes", "list", "--url", url, cwd=tmp_path)
        newest = run_rbee("crashes", "show", "--url", url, cwd=tmp_path)
        answers.crashes = [crash(1)]
        missing = run_rbee("crashes", "show", "../x", "--url", url, cwd=tmp_path)
    assert (none.returncode, none.stdout) == (0, "no worker has failed\n")
    assert newest.returncode == missing.returncode == ExitCode.USAGE
    assert "no worker has failed" in newest.stderr
    assert crash(1)["id"] in missing.stderr


def test_reset_is_for_one_slot_or_for_all_that_have_failures(tmp_path: Path) -> None:
    answers = Answers()
    answers.workers = [worker("a-0", failures=4), worker("a-1"), worker("a-2", failures=1)]
    with serving(answers) as url:
        one = run_rbee("workers", "reset", "a-1", "--url", url, cwd=tmp_path)
        failed = run_rbee("workers", "reset", "--url", url, cwd=tmp_path)
        unknown = run_rbee("workers", "reset", "b-0", "--url", url, cwd=tmp_path)
        answers.workers = [worker("a-1")]
        none = run_rbee("workers", "reset", "--url", url, cwd=tmp_path)
    assert one.stdout == "a-1: reset\n"
    assert failed.stdout == "a-0: reset\na-2: reset\n"
    assert answers.posts == [f"/v1/rbee/workers/{slot}/reset" for slot in ("a-1", "a-0", "a-2")]
    assert unknown.returncode == ExitCode.USAGE
    assert none.stdout == "no slot has failures\n"


def test_status_tells_the_breaker_and_its_remedy(tmp_path: Path) -> None:
    answers = Answers()
    answers.workers = [
        worker(
            "a-0", state="failed", last_failure="ended by signal 11", cause="crash", pid=None,
            breaker="open", remedy="look",
        ),
        worker("a-1", breaker="closed", verdict="slow", concern="no beat for 6.0 s"),
    ]  # fmt: skip
    with serving(answers) as url:
        done = run_rbee("status", "--url", url, cwd=tmp_path)
    assert "BREAKER" in done.stdout.splitlines()[0]
    assert (
        "a-0 is failed: ended by signal 11 (crash); look; then: rbee workers reset a-0"
        in done.stdout
    )
    assert "a-1 is slow: no beat for 6.0 s" in done.stdout
