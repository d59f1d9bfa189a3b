"""A short run of `tests.security.fuzz`; the long one is run by hand, 10^6 inputs each."""

from pathlib import Path

import pytest

from tests.security.fuzz import Findings as Found
from tests.security.fuzz import all_targets, feed, run
from tests.security.fuzz_targets import TARGETS
from tests.security.target import Target

INPUTS = 2000
INPUTS_OF_SLOW = {"chat-template": 100, "gguf": 500, "model-folder": 300}  # compiled; in files


@pytest.mark.parametrize("name", [*(each.name for each in TARGETS), "gguf", "model-folder"])
def test_made_inputs_bring_out_declared_exceptions_alone(name: str, tmp_path: Path) -> None:
    [target] = [each for each in all_targets(tmp_path) if each.name == name]
    inputs = INPUTS_OF_SLOW.get(name, INPUTS)
    findings = run(target, inputs, seed=1)
    assert findings.found == []
    assert findings.inputs == inputs + len(target.seeds)


def test_what_is_not_declared_is_found_once_with_its_input() -> None:
    target = Target("broken", lambda data: 1 // len(data), [b"a"], declared=(ValueError,))
    findings = Found()
    for data in (b"a", b"", b""):
        feed(target, data, findings)
    assert findings.inputs == 3
    assert len(findings.found) == 1
    assert "ZeroDivisionError" in findings.found[0]


def test_the_same_seed_gives_the_same_inputs() -> None:
    fed: list[list[bytes]] = []
    for seed in (1, 1, 2):
        fed.append([])
        run(Target("any", fed[-1].append, [b"abc", b"def"], [b"x"]), 50, seed)
    assert fed[0] == fed[1] != fed[2]
