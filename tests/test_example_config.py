"""rbee.toml.example: names every key, states every default, and its examples are valid."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rbee.config import (
    AccessConfig,
    AuditConfig,
    Config,
    GpuConfig,
    LogConfig,
    ModelConfig,
    RestartConfig,
    ServerConfig,
    SyntheticConfig,
    TlsConfig,
    WorkerConfig,
    load_config,
    parse_config,
)
from rbee.jwt_config import JwtConfig
from rbee.section import Section

EXAMPLE = Path(__file__).parent.parent / "rbee.toml.example"

SECTIONS: dict[str, type[Section]] = {
    "[server]": ServerConfig,
    "[tls]": TlsConfig,
    "[access]": AccessConfig,
    "[worker]": WorkerConfig,
    "[restart]": RestartConfig,
    "[gpu]": GpuConfig,
    "[log]": LogConfig,
    "[audit]": AuditConfig,
    "[jwt]": JwtConfig,
    "[[model]]": ModelConfig,
    "[model.synthetic]": SyntheticConfig,
}
EXTRA = "# More models, as examples."


def _reference() -> str:
    """The part of the file that names every key; the further models come after it."""
    return EXAMPLE.read_text("utf-8").partition(EXTRA)[0]


def _blocks() -> dict[str, str]:
    parts = re.split(r"^(\[.*\])$", _reference(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _keys(section: type[Section]) -> set[str]:
    nested = {"synthetic"} if section is ModelConfig else set()  # a table, with its own block
    return {field.encode_name for field in msgspec.structs.fields(section)} - nested


def test_example_states_the_defaults() -> None:
    assert load_config(EXAMPLE) == Config()


def test_example_has_every_section() -> None:
    assert set(_blocks()) == set(SECTIONS)
    top = {field.encode_name for field in msgspec.structs.fields(Config)}
    assert {re.split(r"\W+", title)[1] for title in SECTIONS} == top


@pytest.mark.parametrize("title", SECTIONS)
def test_example_names_every_key_of_a_section(title: str) -> None:
    named = re.findall(r"^(?:# )?([a-z_]+) = ", _blocks()[title], re.MULTILINE)
    assert len(named) == len(set(named)), "a key stands twice"
    assert set(named) == _keys(SECTIONS[title])


@pytest.mark.parametrize("title", SECTIONS)
def test_only_keys_without_a_default_value_are_commented_out(title: str) -> None:
    commented = set(re.findall(r"^# ([a-z_]+) = ", _blocks()[title], re.MULTILINE))
    unset = {
        field.encode_name
        for field in msgspec.structs.fields(SECTIONS[title])
        if field.default is None
    }
    assert commented == unset


def test_every_key_has_a_sentence_before_it() -> None:
    lines = _reference().splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"(# )?[a-z_]+ = ", line):
            assert re.match(r"# .*\.$", before), line


def test_values_in_comments_are_valid() -> None:
    uncommented = re.sub(r"^# ([a-z_]+ = )", r"\1", _reference(), flags=re.MULTILINE)
    assert parse_config(uncommented).model[0].threads == 4


def test_further_models_are_valid() -> None:
    extra = EXAMPLE.read_text("utf-8").partition(EXTRA)[2]
    text = re.sub(r"^# ?(?!#)", "", extra, flags=re.MULTILINE)
    table: dict[str, Any] = tomllib.loads(text)
    assert len(table["model"]) == 3
    assert [model.name for model in parse_config(text).model] == [
        "qwen3-4b",
        "llama-8b",
        "load-test",
    ]
