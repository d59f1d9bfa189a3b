"""How an entry becomes a line: as docs/audit.md says, so that others can verify it."""

import json
import re
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.audit.chain import (
    DETAILS_BYTES_MAX,
    GENESIS,
    LINE_BYTES_MAX,
    Note,
    encode_details,
    hash_of,
    read_line,
    rfc_3339,
    write_lines,
)
from rbee.audit.events import KINDS, ConfigRejected, Event, KeyCreated, Outcome
from rbee.audit.verify import FlawKind

DOCS = Path(__file__).parent.parent.parent / "docs" / "audit.md"


def test_the_worked_example_of_the_docs_is_verified_by_the_code_of_the_docs() -> None:
    text = DOCS.read_text("utf-8")
    [example] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    lines = example.splitlines()
    assert len(lines) == 2
    exec(compile(code, "docs/audit.md", "exec"), {"lines": lines})
    changed = [lines[0], lines[1].replace("tiny", "tidy")]
    with pytest.raises(AssertionError):
        exec(compile(code, "docs/audit.md", "exec"), {"lines": changed})
    for line in lines:
        found = read_line(line.encode())
        assert found is not None
        assert hash_of(found.body) == found.hash


def test_the_docs_name_every_event_with_all_its_details_and_every_flaw() -> None:
    text = DOCS.read_text("utf-8")
    for kind in KINDS:
        details = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
        assert f"| `{kind.event.value}` | {details} |" in text
    for flaw in FlawKind:
        assert f"`{flaw.value}`" in text


def test_every_event_has_one_kind_of_details() -> None:
    assert sorted(kind.event for kind in KINDS) == sorted(Event)


def test_details_are_texts_whole_numbers_booleans_and_lists_of_texts() -> None:
    allowed = {str, int, bool, type(None), tuple[str, ...]}
    for kind in KINDS:
        hints = typing.get_type_hints(kind)
        for name in kind.__struct_fields__:
            parts = typing.get_args(hints[name]) if hints[name] != tuple[str, ...] else ()
            assert set(parts or (hints[name],)) <= allowed, (kind, name)


TEXTS = st.text(st.characters(), max_size=100)


@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=4), st.none() | TEXTS)
def test_a_body_is_what_json_makes_of_it_whatever_its_texts_hold(
    key: str, actor: str, models: list[str], expires: str | None
) -> None:
    details = KeyCreated(
        key=key, fingerprint="ab12cd", role="user", models=tuple(models), expires=expires
    )
    note = Note(details, actor, Outcome.SUCCESS, None, 1)
    [raw], head = write_lines(GENESIS, [note], None)
    assert raw.endswith(b"\n")
    assert b"\n" not in raw[:-1]
    line = read_line(raw[:-1])
    assert line is not None
    assert (line.hash, line.entry.seq) == (head.hash, head.seq)
    tree = json.loads(line.body)
    assert json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode() == line.body


@given(st.text(st.characters(exclude_categories=[]), max_size=20_000))
def test_details_are_never_too_long_and_say_when_they_were_clipped(problem: str) -> None:
    encoded = encode_details(ConfigRejected(problem=problem))
    assert len(encoded) <= DETAILS_BYTES_MAX
    tree = json.loads(encoded)
    assert tree.get("is_clipped", False) == (tree.get("problem") != problem)


def test_a_line_that_is_as_long_as_can_be_is_within_the_limit() -> None:
    details = ConfigRejected(problem="\x01" * 600)
    note = Note(details, "\x01" * 10_000, Outcome.SUCCESS, "i" * 64, 1)
    [raw], _ = write_lines(GENESIS, [note], bytes(32))
    assert len(raw) < LINE_BYTES_MAX


@given(st.binary(max_size=400))
def test_whatever_bytes_are_read_give_a_line_or_none(raw: bytes) -> None:
    line = read_line(raw)
    assert line is None or hash_of(line.body)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_793_707_200_123_456_789, "2026-11-03T12:00:00.123456Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_in_utc(time_ns: int, text: str) -> None:
    assert rfc_3339(time_ns) == text


@pytest.mark.parametrize(
    ("models", "kept"),
    [
        (("m" * 5000,), ["m" * 256]),
        (("m",) * 5000, ["m"] * 8),
        (("half \ud800",), ["half ?"]),
        (("\x01" * 300,) * 9, None),  # too long even when it is clipped
    ],
)
def test_details_that_are_too_long_are_clipped_field_by_field(
    models: tuple[str, ...], kept: list[str] | None
) -> None:
    details = KeyCreated(key="k", fingerprint="ab12cd", role="user", models=models, expires=None)
    tree = json.loads(encode_details(details))
    assert tree["is_clipped"] is True
    assert tree.get("models") == kept


def test_an_actor_with_half_a_character_is_recorded_all_the_same() -> None:
    note = Note(ConfigRejected(problem="p"), "key:\udcff", Outcome.SUCCESS, None, 1)
    [raw], _ = write_lines(GENESIS, [note], None)
    assert json.loads(raw)["actor"] == "key:?"
