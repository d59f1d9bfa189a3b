"""What the documents promise of the code: the table of states, the size of the rooms."""

import ast
import re
from pathlib import Path

import grimp
import pytest

from rbee.supervisor.lifecycle import TRANSITIONS, WorkerEvent, WorkerState

ROOT = Path(__file__).parent.parent
LINES_MAX = 400


def test_the_table_of_states_in_the_architecture_is_the_codes() -> None:
    whole = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    text = whole.partition("## States of a worker")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \|(.*)\|$", text, re.MULTILINE)
    table = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    events = [WorkerEvent(name) for name in table["state"]]
    assert set(events) == set(WorkerEvent)
    for state in WorkerState:
        told = dict(zip(events, table[state.value], strict=True))
        real = {event: after.value for event, after in TRANSITIONS[state].items()}
        assert {event: after for event, after in told.items() if after} == real


def test_no_thread_that_may_be_left_to_itself_is_one_of_those_that_all_share() -> None:
    """Forty that hang would keep whoever needs a thread waiting for ever."""
    found = {
        f"{path}:{call.lineno}": {each.arg for each in call.keywords}
        for path in (ROOT / "rbee").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
    }
    may_be_left = {place: named for place, named in found.items() if "abandon_on_cancel" in named}
    assert may_be_left
    assert [place for place, named in may_be_left.items() if "limiter" not in named] == []


def test_no_two_modules_import_each_other_by_any_way() -> None:
    graph = grimp.build_graph("rbee")
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            back = graph.find_shortest_chain(imported, module)
            assert back is None, f"{module} imports {' imports '.join(back or ())}"


@pytest.mark.parametrize("folder", ["rbee", "tests", "benchmarks", "tools"])
def test_no_file_is_over_the_limit(folder: str) -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text("utf-8").splitlines())) > LINES_MAX
    }
    assert long == {}
