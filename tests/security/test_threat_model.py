"""docs/security.md names a test for each threat: each of them is there, and nothing is left out."""

import ast
import functools
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")

REFERENCE = re.compile(r"`(tests/[a-z0-9_/]+\.py)(?:::(test_[a-z0-9_]+))?`")
MODULE = re.compile(r"python -m (tests\.[a-z0-9_.]+)")

INCIDENT = "Incidents elsewhere, and why not here"

# What others had to learn from, by a word that its line must hold.
INCIDENTS = (
    "BadHost", "ShadowMQ", "ShadowRay", "CVE-2024-34359", "CVE-2024-37032", "CVE-2024-28224",
    "CVE-2025-46570", "CVE-2025-59425", "CVE-2026-93034", "CVE-2026-27940", "xgrammar", "Triton",
    "TGI", "LocalAI", "LiteLLM", "hypercorn", "h11", "PyJWT", "libzmq", "519 bytes", "gunicorn",
)  # fmt: skip


@functools.cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in found)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines][1:]


def test_every_test_and_command_that_is_named_exists() -> None:
    named = REFERENCE.findall(TEXT)
    assert len(named) > 100
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or (name and name not in functions(path))
    ]
    assert missing == []
    assert TEXT.count("`tests/") == len(named), "a reference that this test cannot read"
    modules = MODULE.findall(TEXT)
    assert modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_every_threat_lesson_and_incident_names_a_test() -> None:
    for heading in ("Where something comes in", "Threats", "Lessons", INCIDENT):
        table = rows(heading)
        assert len(table) > 5
        assert [row[0] for row in table if not REFERENCE.search(row[-1])] == []


def test_all_thirty_lessons_stand_in_their_order() -> None:
    assert [row[0] for row in rows("Lessons")] == [f"L{number}" for number in range(1, 31)]


def test_no_incident_is_left_out() -> None:
    table = rows(INCIDENT)
    for word in INCIDENTS:
        assert [row for row in table if word in row[0]], word
