"""schemathesis against a real `rbee serve`: what the OpenAPI document says is what happens.

    python -m tests.security.api_fuzz --cases 200 [--total 30000]

Each operation gets up to so many cases, good and bad, beside those that cover each limit of the
schema; with other seeds and new servers again and again, until there were so many in all. It must
not answer 5xx but for 503 where a worker was stopped and 504 where a deadline has passed; with no
status, header, type or body that the document does not have; and must refuse what the document
forbids. Left out is the check that all which fits the document is taken: a schema cannot say that
256 characters may be more than 256 bytes, or what two parameters may not say together.

Exit codes: 0 nothing found, 1 something.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rbee.store import FILE_NAME, open_store
from rbee.supervisor.access.api_key import NewKey
from rbee.supervisor.access.minting import KeyOrder, mint
from rbee.supervisor.access.principal import Role
from tests.e2e.server import Server, synthetic_config
from tests.security.api_fuzz_hooks import KEY_ID_VARIABLE

ROOT = Path(__file__).parents[2]
WORKERS = "slots = 2\nbatch_size = 32\n"
EVERY_PHASE = "examples,coverage,fuzzing"
QUICK = "tokens_per_s = 1e6\ncontext_length = 64\n"

SETTINGS = """
hooks = "tests.security.api_fuzz_hooks"
continue-on-failure = true
request-timeout = 30
warnings = false

[checks]
positive_data_acceptance.enabled = false
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
"""


def fuzz(directory: Path, cases: int, seed: int, phases: str = EVERY_PHASE) -> int:
    """Start a server, run schemathesis against it, and look at both.

    Returns:
      How many cases it made.

    Raises:
      AssertionError: it found something, or the server has logged a bug.
    """
    key = _key_of_an_admin(directory)
    header = f'[headers]\nAuthorization = "Bearer {key.text}"\n'
    (directory / "schemathesis.toml").write_text(SETTINGS + header)
    head = f'[server]\nstate_dir = "{directory}"\n'
    config = synthetic_config(head=head, model=WORKERS).replace("tokens_per_s = 200\n", QUICK)
    server = Server(directory, config)
    try:
        server.ready()
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "--no-color", "run",
                server.url + "/openapi.json", "--max-examples", str(cases), "--seed", str(seed),
                "--phases", phases,
            ],
            cwd=directory,  # it keeps what it finds in files of its own
            env={**os.environ, "PYTHONPATH": str(ROOT), KEY_ID_VARIABLE: key.id},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-20_000:]}{done.stderr[-4000:]}"
        assert server.get("/health/live").status_code == 200
        bugs = [line for line in server.events if line["event"] in ("request_failed", "not_json")]
        assert bugs == []
    finally:
        server.close()
    made = re.search(r"(\d+) generated", done.stdout)
    assert made is not None, done.stdout
    return int(made[1])


def _key_of_an_admin(directory: Path) -> NewKey:
    """A key that may do everything, in the store of the server to be."""
    key, row = mint(KeyOrder(role=Role.ADMIN), int(time.time()))
    store = open_store(directory / FILE_NAME)
    assert store is not None
    store.keys.add(row)
    store.close()
    return key


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.api_fuzz")
    parser.add_argument("--cases", type=int, default=100, help="for each operation, at most")
    parser.add_argument("--total", type=int, default=1, help="of all operations, at least")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    total, seed, phases = 0, options.seed, EVERY_PHASE
    while total < options.total:
        with tempfile.TemporaryDirectory(prefix="rbee-api-fuzz-") as directory:
            try:
                total += fuzz(Path(directory), options.cases, seed, phases)
            except AssertionError as found:
                print(f"seed {seed}: {found}")
                return 1
        print(f"{total} cases, the last of seed {seed}: nothing found", flush=True)
        seed, phases = seed + 1, "fuzzing"  # what covers the schema is the same each time
    return 0


if __name__ == "__main__":
    sys.exit(main())
