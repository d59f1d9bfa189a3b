"""What all tests share: assertions of the helpers explain themselves.

Two run at a time (`make test`), as most of them wait for a server. Tests of one file share what
the file has made, so they run in one process, one after the other. Not so those of files in
`TESTS_APART`, where each test has a server of its own; and those in `FOLDERS_TOGETHER` share what
is made once for the folder.
"""

import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# A busy machine is no bug, so no example has a deadline. The same examples each time: what
# fails here fails again. `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

TESTS_APART = {"tests/specs/test_specs.py"}
FOLDERS_TOGETHER = {"tests/benchmarks"}  # the load client is built there

# Started in the background of a shell, this process would have SIGINT ignored, and so would
# all that the tests start: nothing could be stopped by Ctrl-C then. After nohup it is SIGHUP.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own() -> Iterator[None]:
    """Crash reports of servers under test go nowhere else."""
    with (
        tempfile.TemporaryDirectory(prefix="rbee-state-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("STATE_DIRECTORY", raising=False)
        patch.setenv("XDG_STATE_HOME", folder)
        yield


class Together(LoadScopeScheduling):
    """Sends a file's tests to one process, or what the tables above say."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        if file in TESTS_APART:
            return nodeid
        return folder if folder in FOLDERS_TOGETHER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    return Together(config, log)


pytest.register_assert_rewrite("tests.e2e", "tests.specs", "tests.supervisor", "tests.engine")
