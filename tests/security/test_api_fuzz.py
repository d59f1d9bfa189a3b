"""A short run of `tests.security.api_fuzz`; docs/security.md names the long one."""

import re
from pathlib import Path

from tests.security.api_fuzz import fuzz


def test_some_hundred_made_requests_find_nothing(tmp_path: Path) -> None:
    told = fuzz(tmp_path, cases=10, seed=1, phases="fuzzing")
    cases = re.search(r"(\d+) generated", told)
    assert cases is not None, told
    assert int(cases[1]) >= 200
