"""Each scenario of `specs/` is a test here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.specs.access_steps import STEPS as ACCESS
from tests.specs.audit_steps import STEPS as AUDIT
from tests.specs.audit_tamper_steps import STEPS as AUDIT_TAMPER
from tests.specs.deadline_steps import STEPS as DEADLINES
from tests.specs.error_steps import STEPS as ERRORS
from tests.specs.evidence_steps import STEPS as EVIDENCE
from tests.specs.gpu_steps import STEPS as GPU
from tests.specs.inference_steps import STEPS as INFERENCE
from tests.specs.jwt_steps import STEPS as JWTS
from tests.specs.lifecycle_steps import STEPS as LIFECYCLE
from tests.specs.metrics_box_steps import STEPS as METRICS_BOX
from tests.specs.metrics_steps import STEPS as METRICS
from tests.specs.priority_steps import STEPS as PRIORITIES
from tests.specs.queue_steps import STEPS as QUEUE
from tests.specs.recovery_steps import STEPS as RECOVERY
from tests.specs.resource_steps import STEPS as RESOURCES
from tests.specs.runner import NoSuchStepError, Scenario, Steps, load_scenarios
from tests.specs.secret_steps import STEPS as SECRETS
from tests.specs.shared import close_shared
from tests.specs.validation_steps import STEPS as VALIDATION
from tests.specs.world import World

ALL = Steps.together(
    LIFECYCLE,
    INFERENCE,
    EVIDENCE,
    RECOVERY,
    RESOURCES,
    GPU,
    AUDIT,
    DEADLINES,
    QUEUE,
    AUDIT_TAMPER,
    VALIDATION,
    ERRORS,
    SECRETS,
    ACCESS,
    JWTS,
    PRIORITIES,
    METRICS,
    METRICS_BOX,
)
SCENARIOS = load_scenarios()


@pytest.fixture(scope="module", autouse=True)
def _shared_servers() -> Iterator[None]:
    yield
    close_shared()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_scenario(scenario: Scenario, world: World) -> None:
    assert scenario.steps, "a scenario without a line asserts nothing"
    ALL.run(scenario, world)


def test_each_line_has_exactly_one_step_and_each_step_a_line() -> None:
    used = {ALL.find(line)[0] for scenario in SCENARIOS for line in scenario.steps}
    assert set(ALL.patterns) - used == set()


def test_a_line_without_a_step_is_an_error() -> None:
    with pytest.raises(NoSuchStepError, match="0 steps"):
        ALL.find("the moon is made of cheese")


def test_a_line_with_two_steps_is_an_error() -> None:
    steps = Steps()
    steps.step("a (.*)")(print)
    steps.step("(.*) b")(print)
    with pytest.raises(NoSuchStepError, match="2 steps"):
        steps.find("a b")
