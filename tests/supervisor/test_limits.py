"""The rules on limits: what is asked of the kernel, what holds it, and what is refused."""

import resource

import pytest

from rbee.config import Config, ModelConfig, parse_config
from rbee.errors import ConfigError
from rbee.supervisor.descriptors import check_descriptors, raise_descriptor_limit
from rbee.supervisor.limits import (
    Holding,
    Limits,
    check_limits,
    controllers_needed,
    descriptors_problem,
    judge_holding,
    limits_of,
)

ALL = {"memory": "cgroup2", "cpu": "cgroup2", "pids": "cgroup1"}
NONE = {"memory": "", "cpu": "", "pids": ""}


def test_a_model_without_limits_has_none() -> None:
    assert limits_of(ModelConfig(ref="synthetic")) == Limits(None, None, None)


def test_limits_are_read_from_the_configuration() -> None:
    config = parse_config(
        '[[model]]\nref = "synthetic"\nmemory_bytes_max = 1073741824\ncpus = 1.5\ntasks_max = 64\n'
    )
    assert limits_of(config.model[0]) == Limits(1 << 30, 1.5, 64)


@pytest.mark.parametrize("line", ["memory_bytes_max = 1000", "cpus = 0", "tasks_max = 1"])
def test_limits_with_which_nothing_can_run_are_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=line.partition(" ")[0]):
        parse_config(f'[[model]]\nref = "synthetic"\n{line}\n')


def test_memory_is_always_counted_and_nothing_else_is_asked_for_unasked() -> None:
    assert controllers_needed([]) == ["memory"]
    assert controllers_needed([Limits(), Limits()]) == ["memory"]
    assert controllers_needed([Limits(cpus=1.0), Limits(tasks_max=99)]) == ["memory", "cpu", "pids"]


def test_what_holds_is_told_for_what_is_limited() -> None:
    assert judge_holding(Limits(), ALL) == Holding("", "", "")
    assert judge_holding(Limits(1, 1.0, 1), ALL) == Holding("cgroup2", "cgroup2", "cgroup1")
    assert judge_holding(Limits(memory_bytes_max=1), NONE) == Holding("watch", "", "")


def test_memory_can_be_held_everywhere_and_so_is_never_refused() -> None:
    check_limits("m", Limits(memory_bytes_max=1 << 30), NONE, ["memory: Permission denied"])


@pytest.mark.parametrize(
    ("limits", "key", "why"),
    [
        (Limits(cpus=1.0), "cpus", "cpu: Permission denied"),
        (Limits(tasks_max=50), "tasks_max", "pids: Read-only file system"),
    ],
)
def test_what_nothing_holds_is_refused_with_the_key_the_reason_and_the_remedy(
    limits: Limits, key: str, why: str
) -> None:
    problems = ["cpu: Permission denied", "pids: Read-only file system"]
    with pytest.raises(ConfigError) as caught:
        check_limits("bee", limits, NONE, problems)
    assert f"model bee: {key} cannot be held here ({why})" in str(caught.value)
    assert "Delegate=yes" in str(caught.value)


@pytest.mark.parametrize(("limit", "fits"), [(1023, False), (1024, True)])
def test_open_files_are_counted_for_workers_and_clients(limit: int, fits: bool) -> None:
    problem = descriptors_problem(limit, workers=64, per_worker=12, kept=256)
    assert (problem == "") == fits
    if not fits:
        assert "is 1023; 64 workers and their clients need at least 1024" in problem


def test_too_few_open_files_are_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigError, match="ulimit -n"):
        check_descriptors(100, len(Config().model))


@pytest.mark.parametrize(
    ("before", "holds", "is_set"),
    [
        ((1024, 4096), 4096, True),
        ((4096, 4096), 4096, False),
        ((1024, resource.RLIM_INFINITY), 1 << 20, True),
        ((1 << 30, 1 << 30), 1 << 30, False),
    ],
    ids=["raised", "raised by somebody", "no hard limit", "more than we want"],
)
def test_our_soft_limit_is_raised_as_far_as_it_may(
    before: tuple[int, int], holds: int, is_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: asked.append(limits))
    assert raise_descriptor_limit() == holds
    assert asked == ([(holds, before[1])] if is_set else [])


def test_a_limit_that_may_not_be_raised_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (512, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 512
