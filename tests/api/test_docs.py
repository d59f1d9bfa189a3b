"""The documents of the HTTP API are held to the code."""

import re
from pathlib import Path

import pytest

from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api import chat_body, completion_body
from rbee.supervisor.api.parameters import COMMON, IGNORED
from rbee.supervisor.api.problems import (
    PROBLEMS,
    RETRIABLE,
    problem_answer,
    problem_object,
)
from rbee.supervisor.api.routing import ByMethod
from rbee.supervisor.http_server import HttpLimits
from tests.api.face import every_route

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
API = (DOCS / "api.md").read_text("utf-8")
ERRORS = (DOCS / "errors.md").read_text("utf-8")


def section(title: str) -> str:
    return API.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def test_the_catalogue_of_errors_is_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| `(\w+)` \|", ERRORS, re.MULTILINE)
    told = {code: (int(status), type_) for code, status, type_ in rows}
    assert len(rows) == len(told)
    assert told == {code.value: (each.status, each.type) for code, each in PROBLEMS.items()}
    assert set(PROBLEMS) == set(ErrorCode)


def test_the_settings_that_the_documents_name_are_there() -> None:
    named = set(re.findall(r"`server\.(\w+)`", API + ERRORS))
    assert named
    assert named <= set(ServerConfig.__struct_fields__)


async def test_every_route_is_documented_and_no_other() -> None:
    real = set()
    for route in every_route():
        assert isinstance(route.app, ByMethod)
        path = route.path.replace(":path", "")
        real |= {
            f"{method} {path}"
            for method in set(route.app.allow.split(", ")) & {"GET", "POST", "DELETE"}
        }
    assert set(first_cells(section("Routes"))) == real


def test_every_parameter_is_documented_and_no_other() -> None:
    both = first_cells(section("Parameters of both completions"))
    chat = first_cells(section("Parameters of `/v1/chat/completions`"))
    plain = first_cells(section("Parameters of `/v1/completions`"))
    assert set(both) == set(COMMON)
    assert set(both) | set(chat) == set(chat_body.PARAMETERS)
    assert set(both) | set(plain) == set(completion_body.PARAMETERS)


def test_the_ignore_list_is_documented_and_nothing_else_is_ignored() -> None:
    listed = set(re.findall(r"`(\w+)`", section("Taken and ignored"))) - {"unsupported_parameter"}
    assert listed == chat_body.IGNORED_IN_CHAT
    assert listed - {"parallel_tool_calls"} == IGNORED


def test_what_may_be_tried_again_says_when() -> None:
    for code, problem in PROBLEMS.items():
        for seconds in (None, 0.0, 1.2, float("inf"), float("nan")):
            response = problem_answer(RequestError(code, "x", retry_after_s=seconds), "id")
            told = dict(response.headers).get(b"retry-after")
            assert (told is not None) == (problem.status in RETRIABLE)
            assert told is None or int(told) >= 1


def test_a_field_at_fault_stands_in_the_details_too() -> None:
    error = RequestError(ErrorCode.MODEL_NOT_FOUND, "no such model", param="model")
    told = problem_object(error, "id")["error"]
    assert isinstance(told, dict)
    assert told["details"] == [{"field": "model", "problem": "no such model"}]
    told = problem_object(RequestError(ErrorCode.DRAINING, "later"), "id")["error"]
    assert isinstance(told, dict)
    assert told["details"] == []


def test_every_error_is_brought_about_by_some_test() -> None:
    tests = [*(ROOT / "specs").glob("*.feature"), *(ROOT / "tests").rglob("*.py")]
    told = "\n".join(path.read_text("utf-8") for path in tests)
    for code in ErrorCode:
        assert re.search(rf"\b({code.value}|ErrorCode\.{code.name})\b", told), code


@pytest.mark.parametrize("page", ["api.md", "errors.md", "local.md"])
def test_the_time_after_which_a_client_that_takes_nothing_is_cut_is_as_documented(
    page: str,
) -> None:
    text = " ".join((DOCS / page).read_text("utf-8").split())
    found = re.findall(r"(?:takes|took) nothing for (\S+) s|(\S+) s without progress", text)
    assert [float(first or second) for first, second in found] == [HttpLimits().send_deadline_s]
