"""The benchmarks are scripts beside each other, and no package: tests reach them by the path."""

import shutil
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [tool for tool in ("cc", "make") if shutil.which(tool) is None]
    if not missing:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents and "client" in item.fixturenames:  # type: ignore[attr-defined]
            item.add_marker(
                pytest.mark.skip(f"the load client is C: no {' and no '.join(missing)}")
            )
