"""How commands end: exit codes, and what is said on the way. Through real processes."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rbee.__main__ import main
from rbee.cli import endings
from rbee.cli.endings import OutputError
from rbee.cli.terminal import put
from rbee.errors import (
    BindError,
    ConfigError,
    EngineError,
    ErrorCode,
    ExitCode,
    LocalProtocolError,
    RbeeError,
    RunDirError,
)
from rbee.signal_mask import HELD
from tests.cli.answering import Answers, serving
from tests.cli.running import COMMAND, TIMEOUT_S, on_terminal, run_rbee

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stauts"], 'Did you mean "status"?'),
        (["workers", "restrat", "x"], 'Did you mean "restart"?'),
        (["chat", "--modle", "x"], "Did you mean --model?"),
        (["chat", "--temperature", "hot", "hi"], "--temperature"),
        (["chat", "--temperature", "nan", "hi"], "--temperature must be from 0 to 2"),
        (["chat", "--max-tokens", "0", "hi"], "--max-tokens must be 1 or more"),
        (["workers", "restart"], "SLOT"),
        (["serve", "--log-format", "xml"], '"json"'),
        (["status", "--url", "nowhere"], "--url must be like http://127.0.0.1:7233"),
        (["status", "--url", "http://h:99999"], "--url must be like"),
        (["version", "now"], "now"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_wrong_command_line_ends_with_64_and_one_hint(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("rbee: ")
    assert told in errors
    assert "Traceback" not in errors


def test_process_ends_with_the_code_of_its_command(tmp_path: Path) -> None:
    done = run_rbee("stauts", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr.endswith("See `rbee --help`.\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--config", "gone.toml"], "gone.toml: No such file or directory"),
        (["serve", "--bind", "7233"], "--bind: "),
        (["serve", "--model", "a/b", "--model", "c/b"], "'b' stands twice"),
        (["config", "check", "bad.toml"], "did you mean 'bind'?"),
        (["config", "check", "open.toml"], "open to other machines"),
        (["config", "check", "user.toml"], "worker.user: there is no user 'nobody-here' on this"),
        (["serve", "--config", "user.toml"], "worker.user: there is no user 'nobody-here' on this"),
        (["config", "show", "bad.toml"], "bad.toml: server: unknown key 'bnid'"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_bad_configuration_ends_with_78_and_says_where(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text('[server]\nbnid = "127.0.0.1:1"\n')
    (tmp_path / "open.toml").write_text('[server]\nbind = "0.0.0.0:7233"\n')
    (tmp_path / "user.toml").write_text('[worker]\nuser = "nobody-here"\n')
    done = run_rbee(*arguments, cwd=tmp_path)
    assert done.returncode == ExitCode.CONFIG
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["chat", "hi"], ["status"], ["workers", "list"], ["workers", "stop", "a-0"]]
)
def test_without_a_server_the_message_says_how_to_start_one(
    arguments: list[str], tmp_path: Path
) -> None:
    with serving(Answers()) as url:
        pass  # the port was free a moment ago, and nobody listens there now
    done = run_rbee(*arguments, "--url", url, cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert done.stderr == f"rbee: no rbee server answers at {url}: start one with `rbee serve`\n"


def test_server_of_another_kind_is_called_that(tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url:
        done = run_rbee("status", "--url", f"{url}/else", cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "does not answer as rbee does: GET /else/health/ready gave 404" in done.stderr


def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "config", "show"],
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == endings.BROKEN_PIPE
    assert done.stderr == b""


def test_who_has_closed_stderr_is_told_nothing_and_no_file_takes_its_place(tmp_path: Path) -> None:
    without_stderr = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", WITHOUT_STDERR]
    done = subprocess.run(
        without_stderr, stdout=subprocess.PIPE, cwd=tmp_path, timeout=TIMEOUT_S, check=False
    )
    assert done.stdout == b"/dev/null"
    assert done.returncode == ExitCode.USAGE


def test_who_has_closed_stdout_learns_so_only_where_there_is_something_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    put("", end="")
    with pytest.raises(OutputError, match="it is closed"):
        put("")


def test_where_nothing_is_to_be_written_a_terminal_that_has_closed_takes_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = pty.openpty()
    os.close(ours)
    with open(theirs, "wb", buffering=0) as raw:  # noqa: PTH123  # as PYTHONUNBUFFERED has it
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))
        put("", end="")
        with pytest.raises(OSError, match="Input/output error"):
            os.write(theirs, b"x")


WITHOUT_STDERR = """
import os, sys
from rbee.__main__ import main
code = main(["no such command"])
os.write(1, os.readlink("/proc/self/fd/2").encode())
sys.exit(code)
"""


def test_full_disk_is_said(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == endings.IO_ERROR
    assert done.stderr == b"rbee: cannot write to stdout: No space left on device\n"


BUG = """
import sys, rbee.__main__ as m, rbee.cli.app as a
def broken(*_): raise ZeroDivisionError("so it goes")
a.run_command = broken
sys.exit(m.main([]))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-m", "rbee", "serve", "--config", "gone.toml"], ExitCode.CONFIG),
        (["-m", "rbee", "serve", "--bind", "1.2.3.4:80"], ExitCode.CONFIG),
        (["-m", "rbee", "no such command"], ExitCode.USAGE),
        (["-c", BUG], ExitCode.SOFTWARE),
    ],
)
@pytest.mark.parametrize("stderr", ["full", "its reader gone"])
def test_the_code_is_the_same_where_stderr_takes_nothing(
    arguments: list[str], code: int, stderr: str, tmp_path: Path
) -> None:
    if stderr == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    try:
        done = subprocess.run(
            [COMMAND[0], *arguments],
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            cwd=tmp_path,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        os.close(descriptor)
    assert done.returncode == code


def test_ctrl_c_ends_a_single_answer_quietly_and_tells_the_server(tmp_path: Path) -> None:
    answers = Answers()
    answers.is_endless = True
    with (
        serving(answers) as url,
        on_terminal("chat", "--url", url, "hi", cwd=tmp_path) as terminal,
    ):
        terminal.wait_for("bee.")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.wait_end() == endings.INTERRUPTED
        assert "Traceback" not in terminal.shown
        assert answers.client_left.wait(TIMEOUT_S)


def test_bug_shows_its_traceback_and_ends_with_70(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND[0], "-c", BUG], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == ExitCode.SOFTWARE
    assert "ZeroDivisionError: so it goes" in done.stderr
    assert "this is a bug in rbee" in done.stderr


@pytest.mark.parametrize(("command", "held"), [("serve", HELD), ("-- serve", HELD), ("status", ())])
def test_signals_wait_before_serve_imports_anything_and_for_no_other_command(
    command: str, held: tuple[signal.Signals, ...]
) -> None:
    program = (
        "import signal, sys, rbee.__main__ as m\n"
        "def look(*_): print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
        "assert not {'rbee.cli', 'rbee.config', 'msgspec', 'trio'} & set(sys.modules)\n"
        "m._run = look\n"
        "m.main()"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", program, *command.split()],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.stdout == f"{sorted(held)}\n", done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (endings.UsageError("x"), ExitCode.USAGE),
        (ConfigError("x"), ExitCode.CONFIG),
        (BindError("x"), ExitCode.UNAVAILABLE),
        (RunDirError("x"), ExitCode.CANT_CREATE),
        (EngineError("x", ExitCode.OUT_OF_MEMORY), ExitCode.OUT_OF_MEMORY),
        (endings.RefusedError("x", "model_not_found", ""), ExitCode.USAGE),
        (endings.RefusedError("x", "queue_full", ""), ExitCode.UNAVAILABLE),
        (endings.RefusedError("x", "invalid_api_key", ""), ExitCode.NO_PERMISSION),
        (endings.RefusedError("x", "of_a_later_version", ""), ExitCode.UNAVAILABLE),
        (LocalProtocolError("x"), ExitCode.SOFTWARE),
    ],
    ids=repr,
)
def test_each_kind_of_error_has_its_exit_code(error: RbeeError, code: ExitCode) -> None:
    assert endings.exit_code_of(error) == code


@pytest.mark.parametrize("code", ErrorCode)
def test_no_refusal_of_the_catalogue_ends_with_0(code: ErrorCode) -> None:
    assert endings.exit_code_of(endings.RefusedError("x", code, "")) in set(ExitCode) - {0}


def test_documentation_names_every_exit_code_and_no_other() -> None:
    text = (DOCS / "exit-codes.md").read_text("utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    of_commands = {
        endings.NOT_WELL,
        endings.IO_ERROR,
        endings.INTERRUPTED,
        endings.BROKEN_PIPE,
    }
    assert documented == {int(code) for code in ExitCode} | of_commands
    for code in ExitCode:
        assert f"| {int(code)} | `{code.name}` |" in text


def test_documentation_names_every_command_and_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    commands = [
        "serve", "chat", "status", "doctor", "openapi", "version", "workers list",
        "workers restart", "workers stop", "workers reset", "crashes list", "crashes show",
        "config check", "config show",
    ]  # fmt: skip
    for command in commands:
        assert f"`rbee {command}" in text, command
        assert main([*command.split(), "--help"]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80, command
        for option in set(re.findall(r"--[a-z][a-z-]*", shown)):
            assert f"`{option}" in text, f"{command} {option}"


@pytest.mark.parametrize("command", [[], ["workers"], ["config"]], ids=str)
def test_bare_group_shows_its_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    assert "Examples:" in capsys.readouterr().out
