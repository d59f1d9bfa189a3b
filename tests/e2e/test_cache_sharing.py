"""A real server with two keys: what one has asked makes nothing quicker for the other.

How much of a prompt was known shows in the steps that the engine takes to read it.
"""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.server import NO_TLS, serving, wait_until
from tests.specs.access_room import bearer, head_of, keep

PROMPT = "Tell me about the sea and the birds above it. " * 120  # a good part of its context
BEATS = "[worker]\nbeat_s = 0.1\n"  # steps are told by beats


class Asked:
    """The one worker of a server, and what it costs it to answer.

    Args:
      admin: the key of somebody who may look at workers.
    """

    def __init__(self, url: str, admin: str) -> None:
        self._url = url
        self._admin = admin

    def steps_for(self, key: str) -> int:
        """How many steps it takes to read the prompt, and to answer one token."""
        before = self._steps()
        body = {"model": "bee-tiny", "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
        answer = httpx2.post(
            f"{self._url}/v1/completions", json=body, headers=bearer(key), timeout=60, verify=NO_TLS
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["prompt_tokens"] > 1024
        return self._steps() - before

    def _steps(self) -> int:
        """As a beat has it that was made after this was asked."""
        beats = self._worker()["beats"]
        wait_until(lambda: self._worker()["beats"] >= beats + 2, 30, "two beats")
        steps: int = self._worker()["steps"]
        return steps

    def _worker(self) -> Any:
        answer = httpx2.get(
            f"{self._url}/v1/rbee/workers", headers=bearer(self._admin), timeout=60, verify=NO_TLS
        )
        return answer.json()["workers"][0]


@pytest.mark.parametrize("share_cache", ["client", "all"])
def test_a_prompt_is_known_to_the_key_that_has_asked_it(tmp_path: Path, share_cache: str) -> None:
    state = tmp_path / "state"
    admin, mine, other = keep(state, "admin"), keep(state), keep(state)
    model = f'[[model]]\nref = "bee-tiny"\nbatch_size = 4\nshare_cache = "{share_cache}"\n'
    with serving(tmp_path, head_of(state) + BEATS + model) as server:
        asked = Asked(server.url, admin)
        whole, again, others = (asked.steps_for(key) for key in (mine, mine, other))
    assert again < whole
    assert others == again if share_cache == "all" else others > again
