"""The keys that the scenarios of `specs/300-authentication.feature` work with."""

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import httpx2

from rbee.store import FILE_NAME, open_store
from rbee.supervisor.access.minting import KeyOrder, mint
from rbee.supervisor.access.principal import Role
from tests.e2e.server import Server, synthetic_config
from tests.specs.world import World

COMPLETIONS: Final = "/v1/completions"
KEYS: Final = "/v1/rbee/keys"
QUICK: Final = "first_token_s = 0.0\n"


@dataclass
class Keyed:
    """What a scenario knows of the keys of its server."""

    state_dir: Path
    admin: str = ""
    good: str = ""
    expired: str = ""
    pids: list[int] = field(default_factory=list)
    before_s: float = 0.0


KEYED: WeakKeyDictionary[World, Keyed] = WeakKeyDictionary()


def keyed(world: World) -> Keyed:
    return KEYED[world]


def keep(state_dir: Path, role: str = "user", **order: Any) -> str:
    """Put a key into a store, as a command does, without the start of a process."""
    store = open_store(state_dir / FILE_NAME)
    assert store is not None
    with store:
        key, row = mint(KeyOrder(role=Role(role), **order), int(time.time()))
        store.keys.add(row)
    return key.text


def with_keys(state_dir: Path) -> Keyed:
    past_s = int(time.time()) - 60
    return Keyed(
        state_dir, keep(state_dir, "admin"), keep(state_dir), keep(state_dir, expires_s=past_s)
    )


def head_of(state_dir: Path, server: str = "") -> str:
    return f'[server]\nstate_dir = "{state_dir}"\n{server}\n'


def begin(world: World, head: str) -> None:
    server = Server(world.directory, synthetic_config(head=head, synthetic=QUICK))
    world.servers.append(server)
    server.ready()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(world: World, method: str, path: str, key: str = "", **options: Any) -> httpx2.Response:
    return world.try_(method, path, headers=bearer(key) if key else {}, **options)


def generate(world: World, key: str, tokens: int = 2) -> httpx2.Response:
    body = {"model": "synthetic", "prompt": "x", "max_tokens": tokens}
    return ask(world, "POST", COMPLETIONS, key, json=body)


def made(world: World, role: str = "user", **order: Any) -> str:
    """A key that was made over the API: it is good from then on."""
    answer = ask(world, "POST", KEYS, keyed(world).admin, json={"role": role, **order})
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["key"]
    return key


def command(world: World, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rbee", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=world.directory,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
