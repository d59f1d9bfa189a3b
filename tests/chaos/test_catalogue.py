"""The list of scenarios: whole, documented, and large enough."""

import re
from pathlib import Path
from typing import get_args

import pytest

from rbee.chaos.campaign import split_by_needs
from rbee.chaos.catalogue import ABSENT, SCENARIOS
from rbee.cli.chaos import chaos
from rbee.cli.endings import UsageError
from rbee.config import Fault, parse_config

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "chaos.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `([a-z0-9]+(?:-[a-z0-9]+)+)` \| (.*) \|$", DOCUMENT, re.MULTILINE))


def test_every_scenario_says_what_happens() -> None:
    assert {name for name, each in SCENARIOS.items() if not each.about.endswith(".")} == set()


def test_scenarios_have_the_form_of_names() -> None:
    names = [*SCENARIOS, *(each.name for each in ABSENT)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)] == []


def test_the_document_tells_all_scenarios_and_why_others_are_not_there() -> None:
    told = {name: each.about.rstrip(".") for name, each in SCENARIOS.items()}
    told |= {each.name: each.reason for each in ABSENT}
    assert {name: text.partition(" | ")[0] for name, text in ROWS.items()} == told


def test_the_document_tells_all_faults_of_the_synthetic_engine() -> None:
    told = set(re.findall(r"^\| `([a-z_]+)` \|", DOCUMENT, re.MULTILINE))
    assert told == set(get_args(Fault))


def test_what_this_machine_has_not_is_named_and_its_drills_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _command: None)
    possible, others = split_by_needs(SCENARIOS.values())
    assert {each.name for each in possible} == {
        name for name, each in SCENARIOS.items() if not each.needs
    }
    told = {each.name: each.reason for each in others}
    assert told["store-disk-full"] == "not on this machine: needs root"
    assert told["secret-file-lost"] == "not on this machine: needs the openssl command"


def test_at_least_sixty_kinds_are_held_and_twenty_of_them_here() -> None:
    assert len(SCENARIOS) >= 60
    assert sum(each.is_quick for each in SCENARIOS.values()) >= 20


def test_every_setting_is_a_configuration(tmp_path: Path) -> None:
    for scenario in SCENARIOS.values():
        text = scenario.setting.as_toml(tmp_path, tmp_path / "run", tmp_path / "state")
        assert parse_config(text).model[0].name == "first"


@pytest.mark.parametrize(("seeds", "rounds", "jobs"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_none_of_something_is_not_taken_for_the_default(seeds: int, rounds: int, jobs: int) -> None:
    with pytest.raises(UsageError, match="must be 1 or more"):
        chaos(seeds=seeds, rounds=rounds, jobs=jobs)
