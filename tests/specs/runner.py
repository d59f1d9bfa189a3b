"""Runs `specs/*.feature`: each scenario is a test, each line has exactly one step.

Steps are plain synchronous functions that drive a real `rbee serve` from outside. A line with
no step, or with two, is an error, and so is a step that no line uses.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler

SPECS = Path(__file__).parent.parent.parent / "specs"

Step = Callable[..., None]


class NoSuchStepError(Exception):
    """A line of a feature fits no step, or more than one."""


@dataclass(frozen=True)
class Scenario:
    """One scenario of one feature, examples filled in."""

    feature: str
    name: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.feature}: {self.name}"


class Steps:
    """The steps of all features, by the pattern of the line that they stand for."""

    def __init__(self) -> None:
        self._steps: dict[re.Pattern[str], Step] = {}

    @classmethod
    def together(cls, *others: "Steps") -> "Steps":
        """The steps of all of them; no line may stand in two."""
        steps = cls()
        for other in others:
            twice = steps._steps.keys() & other._steps.keys()
            assert not twice, f"two steps for {twice}"
            steps._steps |= other._steps
        return steps

    def step(self, pattern: str) -> Callable[[Step], Step]:
        """Register a function for lines of that form; groups become its arguments."""

        def register(function: Step) -> Step:
            compiled = re.compile(pattern)
            assert compiled not in self._steps, f"two steps for {pattern!r}"
            self._steps[compiled] = function
            return function

        return register

    @property
    def patterns(self) -> list[re.Pattern[str]]:
        return list(self._steps)

    def find(self, line: str) -> tuple[re.Pattern[str], Step, tuple[str, ...]]:
        """The one step for ``line``, and its arguments.

        Raises:
          NoSuchStepError: there is none, or more than one.
        """
        found = [
            (pattern, function, match.groups())
            for pattern, function in self._steps.items()
            if (match := pattern.fullmatch(line))
        ]
        if len(found) != 1:
            raise NoSuchStepError(f"{len(found)} steps for the line {line!r}")
        return found[0]

    def run(self, scenario: Scenario, world: Any) -> None:
        for line in scenario.steps:
            _, function, arguments = self.find(line)
            function(world, *arguments)


def load_scenarios() -> list[Scenario]:
    """All scenarios under `specs/`, in order."""
    scenarios: list[Scenario] = []
    for path in sorted(SPECS.glob("*.feature")):
        document: Any = Parser().parse(path.read_text("utf-8"))
        document["uri"] = path.name
        for pickle in Compiler().compile(document):
            lines = tuple(step["text"] for step in pickle["steps"])
            scenarios.append(Scenario(path.stem, pickle["name"], lines))
    return scenarios
