"""Whether the facts of `test_engine.py` were tried over the real generator as well."""

import pytest

from tests.engine.exllamav2.conftest import STANDS, missing_for_the_real_generator


def test_the_real_generator_is_one_of_the_stands() -> None:
    missing = missing_for_the_real_generator()
    if missing:
        pytest.skip(f"the real generator needs {', '.join(missing)}: pip install 'rbee[exllamav2]'")
    assert STANDS == ["fake", "real"]
