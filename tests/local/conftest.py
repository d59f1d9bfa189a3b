"""One real server for the tests of this folder that do it no harm."""

from collections.abc import Iterator

import pytest

from tests.e2e.server import Server, serving, synthetic_config


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = synthetic_config(head="[server]\ndumpable = true\n")  # its descriptors are counted
    with serving(tmp_path_factory.mktemp("local"), config) as server:
        yield server
