"""No secret that can be configured is found anywhere it does not belong."""

import base64
import os
from pathlib import Path

import pytest

from tests.certificates import needs_openssl
from tests.security.canary import NOTHING, Canary, Run, Search


@needs_openssl
def test_no_secret_is_found_where_anybody_could_read_it(tmp_path: Path) -> None:
    search = Run(tmp_path).go()
    assert search.found == []
    kinds = {
        "answers", "command lines", "environments", "log", "commands", "run directory",
        "state directory",
    }  # fmt: skip
    if os.geteuid() == 0:
        kinds.add("memory of children")
    assert set(search.looked_at) == kinds
    assert all(search.looked_at.values())


@pytest.mark.parametrize(
    "shape",
    [b"canary-0123456789", b"canary-0123456789".hex().encode(),
     base64.b64encode(b"canary-0123456789")],
)  # fmt: skip
def test_a_canary_that_has_got_out_is_found_in_each_of_its_shapes(shape: bytes) -> None:
    search = Search([Canary.of("bird", b"canary-0123456789")])
    search.look("log", "line 1", b"before " + shape + b" after", ignore=NOTHING)
    search.look("log", "line 2", b"nothing", ignore=NOTHING)
    assert search.found == ["bird in log: line 1"]
