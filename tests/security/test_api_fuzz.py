"""A short run of `tests.security.api_fuzz`; docs/security.md names the long one."""

from pathlib import Path

from tests.security.api_fuzz import fuzz


def test_some_hundred_made_requests_find_nothing(tmp_path: Path) -> None:
    assert fuzz(tmp_path, cases=10, seed=1, phases="fuzzing") >= 200
