"""What all tests share: assertions of the helpers explain themselves."""

import pytest

pytest.register_assert_rewrite("tests.e2e", "tests.specs", "tests.supervisor", "tests.engine")
