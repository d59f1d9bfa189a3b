"""Times as RFC 3339 has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.supervisor.access.instant import UNIX_S_MAX, read_rfc_3339, rfc_3339


@given(st.integers(0, UNIX_S_MAX))
def test_a_time_that_was_told_reads_back_as_the_same(unix_s: int) -> None:
    assert read_rfc_3339(rfc_3339(unix_s)) == unix_s


@pytest.mark.parametrize(
    ("text", "unix_s"),
    [
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01t00:00:01.5z", 1.5),
        ("1970-01-01T00:00:00.123456789Z", 0.123456),
        ("1970-01-01T00:00:00.12345678901234567890Z", 0.123456),
        ("2016-12-31T23:59:60Z", 1483228800),
        ("2016-12-31T15:59:60.5-08:00", 1483228800.5),
        ("2017-01-01T05:29:60+05:30", 1483228800),
        ("2016-12-31T22:59:60Z", None),
        ("2016-12-31T23:59:61Z", None),
        ("9999-12-31T23:59:60Z", None),
        ("1969-12-31T23:59:60.5Z", 0.5),
        ("1969-06-30T23:59:60Z", -15897600),
        ("2027-02-31T00:00:00Z", None),
        ("2027-01-31T00:00:00", None),
        ("2027-01-31", None),
        ("", None),
    ],
)
def test_what_names_no_time_is_none(text: str, unix_s: float | None) -> None:
    assert read_rfc_3339(text) == unix_s
