"""Plants a canary in every secret that can be configured, runs a server, and looks for them.

``python -m tests.security.canary`` does it once, and says what was looked at.

Rule: whatever anybody could read later is looked at: log, audit log, all other files of the server,
      answers, command lines and environments of all its processes, and what its workers have in
      memory.
"""

import base64
import binascii
import contextlib
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.certificates import Pair, make_pair
from tests.e2e.server import Server, synthetic_config, wait_until

CRASHING = "please crash now"
VARIABLE = "RBEE_TEST_CANARY"
MEMORY_READ_BYTES = 1 << 22

CONFIG = """
[server]
state_dir = "{state_dir}"
[audit]
secret_file = "{secret_file}"
[log]
level = "debug"
[restart]
delay_s_min = 0
{tls}
"""


@dataclass(frozen=True)
class Canary:
    """A secret, and how it would look where it has got out."""

    name: str
    needles: tuple[bytes, ...]

    @classmethod
    def of(cls, name: str, secret: bytes) -> "Canary":
        shapes = {secret, binascii.hexlify(secret), base64.b64encode(secret).rstrip(b"=")}
        return cls(name, (*shapes, binascii.hexlify(secret).upper()))


@dataclass
class Search:
    """What was looked at, and what was found there."""

    canaries: list[Canary] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)  # bytes, by kind of place
    found: list[str] = field(default_factory=list)

    def look(self, kind: str, where: str, data: bytes, *, ignore: frozenset[str]) -> None:
        """``ignore`` has the names of canaries that belong there."""
        self.looked_at[kind] = self.looked_at.get(kind, 0) + len(data)
        for canary in self.canaries:
            if canary.name not in ignore and any(each in data for each in canary.needles):
                self.found.append(f"{canary.name} in {kind}: {where}")


NOTHING: frozenset[str] = frozenset()


class Run:
    """One server with its canaries, from start to end."""

    def __init__(self, folder: Path) -> None:
        self.search = Search()
        self._folder = folder
        self._pair = make_pair(folder / "tls")
        self._secret_file = folder / "audit-secret"
        self._plant_audit_secret()
        self._plant_key(self._pair, "TLS key")
        self._key = self._plant_api_key()
        # One that nobody made: its checksum is wrong, and somebody may mistype his own.
        self._wrong_key = self._key[:-1] + ("a" if self._key[-1] != "a" else "b")
        self._prompt = f"prompt-{secrets.token_hex(12)}"
        self._variable = f"variable-{secrets.token_hex(12)}"
        self.search.canaries += [
            Canary.of("prompt", self._prompt.encode()),
            Canary.of("variable of the environment", self._variable.encode()),
            Canary.of("API key", self._key.encode()),
            Canary.of("API key's secret", self._key.rpartition("_")[2].encode()),
            Canary.of("wrong API key", self._wrong_key.encode()),
        ]
        config = CONFIG.format(
            state_dir=folder / "state", secret_file=self._secret_file, tls=self._pair.toml()
        )
        self._config = synthetic_config(
            head=config, synthetic=f'fault = "crash"\nfault_prompt = "{CRASHING}"'
        )

    def go(self) -> Search:
        os.environ[VARIABLE] = self._variable
        try:
            for _ in range(2):  # the second start finds what the first has left
                server = Server(self._folder, self._config)
                try:
                    self._use(server.ready())
                finally:
                    server.close()
                self._look_at_text("log", "stderr", server.log_text.encode())
        finally:
            del os.environ[VARIABLE]
        self._refuse_to_start()
        self._look_at_files("state directory", self._folder / "state")
        return self.search

    def _use(self, server: Server) -> None:
        context = ssl.create_default_context(cafile=str(self._pair.certificate))
        head = {"Authorization": f"Bearer {self._key}"}
        with httpx2.Client(base_url=server.url, verify=context, timeout=30, headers=head) as client:
            for key in (self._wrong_key, f"{self._key}x"):
                wrong = {"Authorization": f"Bearer {key}"}
                refused = client.get("/v1/models", headers=wrong)
                assert refused.status_code == 401
                self._look_at_answer("a wrong key", refused)
            for path, body in self._requests():
                answer = client.post(path, json=body) if body else client.get(path)
                self._look_at_answer(path, answer)
            self._look_at_processes(server)
            pids = {row["pid"] for row in client.get("/v1/rbee/workers").json()["workers"]}
            body = {"model": "synthetic", "prompt": f"{CRASHING} {self._prompt}", "max_tokens": 3}
            self._look_at_answer("a crash", client.post("/v1/completions", json=body))
            wait_until(lambda: self._has_other_workers(client, pids), 30, "the worker is replaced")
            for path in self._reports(client):
                self._look_at_answer(path, client.get(path))
            self._reload(server)
            self._look_at_answer("after reloads", client.get("/v1/rbee/workers"))
        self._look_at_processes(server)
        self._look_at_files("run directory", server.run_dir)
        assert server.stop() == 0

    def _requests(self) -> Iterator[tuple[str, Any]]:
        body = {"model": "synthetic", "prompt": self._prompt, "max_tokens": 3}
        yield "/v1/completions", body
        yield "/v1/completions", {**body, "stream": True}
        yield "/v1/chat/completions", {
            "model": "synthetic", "max_tokens": 3,
            "messages": [{"role": "user", "content": self._prompt}],
        }  # fmt: skip
        yield "/v1/completions", {**body, "temperature": self._prompt}
        yield "/v1/completions", {**body, "model": "nobody"}
        yield "/v1/nowhere", None
        for path in ("/health/ready", "/v1/models", "/v1/rbee/workers"):
            yield path, None

    def _has_other_workers(self, client: httpx2.Client, before: set[int]) -> bool:
        rows = client.get("/v1/rbee/workers").json()["workers"]
        return all(row["state"] == "ready" and row["pid"] not in before for row in rows)

    def _reports(self, client: httpx2.Client) -> list[str]:
        crashes = client.get("/v1/rbee/crashes").json()["crashes"]
        assert crashes, "a crash leaves a report"
        return ["/v1/rbee/crashes", *(f"/v1/rbee/crashes/{each['id']}" for each in crashes)]

    def _reload(self, server: Server) -> None:
        """A new key, and then files that cannot be used."""
        new = make_pair(self._folder / "new")
        self._plant_key(new, "TLS key, new")
        self._pair.replace_with(new)
        server.signal(signal.SIGHUP)
        server.wait_event("config_reloaded", 20, changed=["tls.certificate_file"])
        good = self._pair.key.read_bytes()
        self._pair.key.write_bytes(good.replace(b"PRIVATE", b"PIRATE"))
        server.signal(signal.SIGHUP)
        server.wait_event("config_rejected", 20)
        self._pair.key.write_bytes(good)

    def _refuse_to_start(self) -> None:
        """What a server says that cannot use its secret, and what the commands say of it."""
        good = self._secret_file.read_bytes()
        for data, mode in ((good * 2, 0o600), (good, 0o644)):
            self._secret_file.write_bytes(data)
            self._secret_file.chmod(mode)
            server = Server(self._folder, self._config)
            assert server.process.wait(30) == 78
            server.close()
            self._look_at_text("log", "a start that fails", server.log_text.encode())
        self._secret_file.chmod(0o600)
        self._secret_file.write_bytes(good)
        path = str(self._folder / "rbee.toml")
        for command in (
            ["config", "show", path],
            ["audit", "verify", "--config", path],
            ["keys", "list", "--config", path],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "rbee", *command], capture_output=True, check=True
            )
            self._look_at_text("commands", " ".join(command), done.stdout + done.stderr)

    # --- planting

    def _plant_audit_secret(self) -> None:
        secret = f"audit-{secrets.token_hex(16)}".encode()
        self._secret_file.write_bytes(secret + b"\n")
        self._secret_file.chmod(0o600)
        self.search.canaries.append(Canary.of("audit secret", secret))

    def _plant_api_key(self) -> str:
        file = self._folder / "admin.key"
        command = ["keys", "create", "--role", "admin", "--key-file", str(file)]
        place = ["--state-dir", str(self._folder / "state")]
        subprocess.run(
            [sys.executable, "-m", "rbee", *command, *place], check=True, capture_output=True
        )
        return file.read_text().strip()

    def _plant_key(self, pair: Pair, name: str) -> None:
        """The key's number itself, in whatever encoding, and the lines of its file."""
        lines = pair.key.read_bytes().splitlines()[1:-1]
        der = base64.b64decode(b"".join(lines))
        start = der.index(b"\x04\x20", 20) + 2  # RFC 5915: an OCTET STRING of 32 bytes
        canary = Canary.of(name, der[start : start + 32])
        self.search.canaries.append(Canary(name, (*canary.needles, *lines[:2])))

    # --- looking

    def _look_at_text(self, kind: str, where: str, data: bytes) -> None:
        self.search.look(kind, where, data, ignore=NOTHING)

    def _look_at_answer(self, path: str, answer: httpx2.Response) -> None:
        head = repr(answer.headers.multi_items()).encode()
        self._look_at_text("answers", f"{path} {answer.status_code}", head + answer.content)

    def _look_at_files(self, kind: str, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._look_at_text(kind, str(path.relative_to(folder)), path.read_bytes())

    def _look_at_processes(self, server: Server) -> None:
        supervisor = psutil.Process(server.pid)
        # We have put it there ourselves: it must go no further.
        own = frozenset({"variable of the environment"})
        for process in [supervisor, *supervisor.children(recursive=True)]:
            folder = Path(f"/proc/{process.pid}")
            name = f"pid {process.pid}"
            is_supervisor = process.pid == supervisor.pid
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended
                self._look_at_text("command lines", name, (folder / "cmdline").read_bytes())
                if os.geteuid() == 0 or not is_supervisor:  # which only root may look into
                    environment = (folder / "environ").read_bytes()
                    ignore = own if is_supervisor else NOTHING
                    self.search.look("environments", name, environment, ignore=ignore)
                if os.geteuid() == 0 and not is_supervisor:
                    self._look_at_memory(name, folder)

    def _look_at_memory(self, name: str, folder: Path) -> None:
        """Of workers, which are given prompts, and the warden."""
        ignore = frozenset({"prompt"})
        with (folder / "mem").open("rb", buffering=0) as memory:
            for line in (folder / "maps").read_text().splitlines():
                span, rights = line.split()[:2]
                start, end = (int(each, 16) for each in span.split("-"))
                if not rights.startswith("rw"):
                    continue
                for at in range(start, end, MEMORY_READ_BYTES):
                    memory.seek(at)
                    try:
                        data = memory.read(min(MEMORY_READ_BYTES, end - at))
                    except OSError:  # taken away meanwhile
                        break
                    self.search.look("memory of children", name, data, ignore=ignore)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="rbee-canary-") as folder:
        search = Run(Path(folder)).go()
    for kind, size in search.looked_at.items():
        print(f"{size:>12,} bytes of {kind}")
    print(f"{len(search.canaries)} canaries: {', '.join(each.name for each in search.canaries)}")
    print("\n".join(search.found) or "none of them was found")
    return 1 if search.found else 0


if __name__ == "__main__":
    sys.exit(main())
