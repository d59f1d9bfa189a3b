"""From rounds to a table; and what counts as flat."""

import math
from typing import Any

import churn
import pytest
from figures import median, percentile, table


def test_percentiles_are_values_that_were_measured() -> None:
    assert [percentile([3, 1, 2, 4], percent) for percent in (0, 50, 75, 99)] == [1, 2, 3, 4]
    assert math.isnan(percentile([], 50))


def test_the_median_of_an_even_number_is_between_the_two_in_the_middle() -> None:
    assert median([4, 1, 3]) == 3
    assert median([4, 1, 3, 2]) == 2.5
    assert math.isnan(median([]))


def test_a_table_has_medians_and_the_ratios_of_the_first_to_the_others() -> None:
    rounds: dict[str, list[dict[str, Any]]] = {
        "rbee": [{"x": 2}, {"x": 4}, {"x": 3}],
        "peer": [{"x": 6, "y": None}],
    }
    rows = (("the x", "x", "{:.1f}"), ("the y", "y", "{:.0f}"))
    assert table("title", rows, rounds).splitlines() == [
        "| title | rbee | peer | rbee / peer |",
        "|---|---:|---:|---:|",
        "| the x | 3.0 | 6.0 | 0.50 |",
        "| the y | - | - | - |",
    ]


@pytest.mark.parametrize(
    ("growth", "is_flat"), [(0.0, True), (0.0004, True), (0.001, False)], ids=str
)
def test_memory_is_flat_when_no_tenth_after_the_warm_up_is_five_percent_off(
    growth: float, is_flat: bool
) -> None:
    samples = [
        {"at_s": at, "front_mib": 100 * (1 + growth * at), "workers_mib": 50.0 if at > 9 else 10.0}
        for at in range(110)
    ]
    assert churn.judge(samples, warm_s=10)["is_flat"] is is_flat
