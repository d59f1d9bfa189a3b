"""`rbee chat`, against a real server: one answer on a pipe, and a conversation on a terminal."""

from pathlib import Path

import pytest

from rbee.errors import ExitCode
from tests.cli.answering import Answers, serving
from tests.cli.running import CTRL_C, CTRL_D, TIMEOUT_S, on_terminal, run_rbee


def test_prompt_gives_one_answer_on_stdout(tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url:
        done = run_rbee(
            "chat", "--url", url, "--system", "Be brief.", "--temperature", "0",
            "--max-tokens", "9", "say", "hello", cwd=tmp_path,
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, bee.\n", "")
    assert answers.chats == [
        {
            "model": "bee-tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "say hello"},
            ],
            "temperature": 0.0,
            "max_tokens": 9,
            "stream": True,
        }
    ]


def test_piped_prompt_is_asked_and_the_url_may_end_as_openai_has_it(tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url:
        question = "Grüße,\nzwei Zeilen\n".encode()
        done = run_rbee("chat", "--url", f"{url}/v1/", "-m", "other", cwd=tmp_path, stdin=question)
    assert (done.returncode, done.stdout) == (0, "Hello, bee.\n")
    assert answers.chats[0]["model"] == "other"
    assert answers.chats[0]["messages"] == [{"role": "user", "content": "Grüße,\nzwei Zeilen"}]


@pytest.mark.parametrize(
    ("stdin", "told"),
    [(b"", "nothing to ask: stdin is empty"), (b"ab\xff", "stdin is not UTF-8 at byte 2")],
    ids=["empty", "not text"],
)
def test_useless_stdin_is_a_usage_error(stdin: bytes, told: str, tmp_path: Path) -> None:
    done = run_rbee("chat", cwd=tmp_path, stdin=stdin)
    assert done.returncode == ExitCode.USAGE
    assert told in done.stderr


def test_url_comes_from_the_configuration_file_here(tmp_path: Path) -> None:
    with serving(Answers()) as url:
        bind = url.removeprefix("http://")
        (tmp_path / "rbee.toml").write_text(f'[server]\nbind = "{bind}"\n')
        done = run_rbee("chat", "hi", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Hello, bee.\n")


def test_line_separators_inside_an_event_do_not_break_the_answer(tmp_path: Path) -> None:
    answers = Answers()
    answers.pieces = ["a\u2028b", "\x85c", "\n"]
    with serving(answers) as url:
        done = run_rbee("chat", "--url", url, "hi", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "a\u2028b\x85c\n")


def test_refusal_shows_code_message_and_correlation_id(tmp_path: Path) -> None:
    answers = Answers()
    problem = {"code": "model_not_found", "message": "no model 'x'", "correlation_id": "abc123"}
    answers.refusal = (404, {"error": problem})
    with serving(answers) as url:
        done = run_rbee("chat", "--url", url, "-m", "x", "hi", cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr == "rbee: model_not_found: no model 'x' (correlation id abc123)\n"


def test_failure_in_mid_answer_is_told_after_what_was_said(tmp_path: Path) -> None:
    answers = Answers()
    answers.failure = {"code": "worker_failed", "message": "the worker died"}
    with serving(answers) as url:
        done = run_rbee("chat", "--url", url, "hi", cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert done.stdout == "Hello, bee.\n"
    assert done.stderr == "rbee: worker_failed: the worker died (correlation id c0ffee)\n"


def test_answer_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    answers = Answers()
    answers.is_cut = True
    with serving(answers) as url:
        done = run_rbee("chat", "--url", url, "hi", cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "ended the answer before its end" in done.stderr


def test_server_without_models_is_told(tmp_path: Path) -> None:
    answers = Answers()
    answers.models = []
    with serving(answers) as url:
        done = run_rbee("chat", "--url", url, "hi", cwd=tmp_path)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "has no model to talk to" in done.stderr


def test_control_characters_of_an_answer_do_not_reach_a_terminal(tmp_path: Path) -> None:
    answers = Answers()
    answers.pieces = ["\x1b]0;owned\x07", "\x9b2J", "\x7f\ttab\nline"]
    with (
        serving(answers) as url,
        on_terminal("chat", "--url", url, "hi", cwd=tmp_path) as terminal,
    ):
        assert terminal.wait_end() == 0
    assert terminal.shown == "\\x1b]0;owned\\x07\\x9b2J\\x7f\ttab\r\nline\r\n"


def test_conversation_goes_on_after_an_answer_is_stopped(tmp_path: Path) -> None:
    answers = Answers()
    answers.is_endless = True
    with serving(answers) as url, on_terminal("chat", "--url", url, cwd=tmp_path) as terminal:
        terminal.wait_for("> ")
        terminal.type(b"one\n")
        terminal.wait_for("Hello, bee.")
        terminal.type(CTRL_C)
        terminal.wait_for("(stopped)")
        assert answers.client_left.wait(TIMEOUT_S)
        terminal.wait_for("> ")
        answers.is_endless = False
        terminal.type(b"two\n")
        terminal.wait_for("Hello, bee.")
        terminal.wait_for("> ")
        terminal.type(CTRL_D)
        assert terminal.wait_end() == 0
        assert "Traceback" not in terminal.shown
    said = [message["content"] for message in answers.chats[1]["messages"]]
    assert said == ["one", "Hello, bee.", "two"]


def test_commands_of_a_conversation(tmp_path: Path) -> None:
    answers = Answers()
    with serving(answers) as url, on_terminal("chat", "--url", url, cwd=tmp_path) as terminal:
        for typed, shown in [
            (b"/help\n", "leave, as does Ctrl-D"),
            (b"/model\n", "* bee-tiny"),
            (b"/model nosuch\n", "has no model nosuch"),
            (b"/model other\n", "* other"),
            (b"/system Be kind.\n", "from the next answer on"),
            (b"/frobnicate\n", "no command /frobnicate"),
            (b"one\n", "Hello, bee."),
            (b"/clear\n", "forgotten"),
            (b"two\n", "Hello, bee."),
        ]:
            terminal.wait_for("> ")
            terminal.type(typed)
            terminal.wait_for(shown)
        terminal.wait_for("> ")
        terminal.interrupt("Ctrl-D or /quit leaves")
        terminal.type(b"/quit\n")
        assert terminal.wait_end() == 0
    assert [chat["model"] for chat in answers.chats] == ["other", "other"]
    assert [m["content"] for m in answers.chats[1]["messages"]] == ["Be kind.", "two"]


def test_conversation_survives_the_server_going_away(tmp_path: Path) -> None:
    refusing = Answers()
    problem = {"code": "context_length_exceeded", "message": "too long"}
    refusing.refusal = (400, {"error": problem})
    with serving(Answers()) as url:
        port = int(url.rpartition(":")[2])
    with on_terminal("chat", "--url", url, "-m", "bee-tiny", cwd=tmp_path) as terminal:
        terminal.wait_for("> ")
        terminal.type(b"one\n")
        terminal.wait_for("no rbee server answers")
        terminal.wait_for("> ")
        with serving(refusing, port):
            terminal.type(b"two\n")
            terminal.wait_for("/clear forgets the conversation")
        terminal.wait_for("> ")
