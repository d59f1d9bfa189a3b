"""A server that several tests look at from outside; they leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.e2e.server import Server, serving, synthetic_config


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("plain"), synthetic_config()) as server:
        yield server
