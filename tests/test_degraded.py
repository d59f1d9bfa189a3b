"""docs/degraded.md promises nothing that no test holds, and names no event that is never logged."""

import re
from pathlib import Path

import pytest

from rbee.errors import ErrorCode

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "degraded.md").read_text("utf-8").splitlines()
    if line.startswith("| ")
][1:]
SOURCE = "\n".join(path.read_text("utf-8") for path in (ROOT / "rbee").rglob("*.py"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_line_names_tests_that_are_there(row: list[str]) -> None:
    assert len(row) == 5
    named = re.findall(r"`(tests/[^`:]+|specs/[^`:]+)(?:::(\w+))?`", row[4])
    assert named
    for path, function in named:
        text = (ROOT / path).read_text("utf-8")
        assert not function or re.search(rf"^(async )?def {function}\(", text, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_event_is_logged_somewhere(row: list[str]) -> None:
    for event in re.findall(r"`([a-z_.]+)`", row[3]):
        assert f'"{event}"' in SOURCE, event
    for code in re.findall(r"`([a-z_]+)`\)", row[2]):
        assert code in set(ErrorCode)
