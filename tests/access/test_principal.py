"""Roles and what a principal may do."""

import itertools

import msgspec
import pytest

from rbee.rate_limits import Limits, Priority
from rbee.supervisor.access.principal import ANYBODY, Principal, Role


def test_each_role_may_do_what_those_before_it_may() -> None:
    for (low, less), (high, more) in itertools.combinations(enumerate(Role), 2):
        assert low < high
        assert more.includes(less)
        assert more.includes(more)
        assert not less.includes(more)
    assert [role.value for role in Role] == ["viewer", "user", "operator", "admin"]


def test_no_models_named_means_all_of_them() -> None:
    assert ANYBODY.may_use("any")
    only = Principal("key:a", Role.USER, frozenset({"one"}))
    assert only.may_use("one")
    assert not only.may_use("two")


def test_a_priority_alone_is_nothing_to_count() -> None:
    assert not Limits(priority=Priority.HIGH).are_counted
    for field in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
        assert msgspec.convert({field: 1}, Limits).are_counted
    assert msgspec.convert({"priority": "low"}, Limits) == Limits(priority=Priority.LOW)


@pytest.mark.parametrize("field", Limits.__struct_fields__)
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, 10**12])
def test_limits_are_whole_numbers_within_bounds_or_a_class(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: value}, Limits)
