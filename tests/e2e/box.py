"""A running `rbee serve` with all that can be asked of it, where one system call may fail."""

import contextlib
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec

from rbee.audit.opening import seal_key
from rbee.audit.place import place_in
from rbee.store import FILE_NAME
from tests.access.jwt.issuer import AUDIENCE, ISSUER, claims, jwk, sign, write_key_set
from tests.certificates import Pair, make_pair
from tests.e2e.books import flaws, read_books
from tests.e2e.injection import STRACE, Point
from tests.e2e.server import Server, synthetic_config, wait_until

# How long it may take, on a busy machine and traced, until all is well again.
HEAL_S: Final = 30.0

# Of these the calls of the thread that writes the log are counted, and no others.
_AUDIT_THREAD: Final = frozenset({"record", "begin a file"})

_FILE_BYTES: Final = 4096  # of the audit log, where it rotates


class Box:
    """A server that is asked, one deed after the other, under one failure each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.state_dir = folder / "state"
        self.secret, self.key_set = folder / "secret", folder / "keys.json"
        self._pairs = [make_pair(folder / "first"), make_pair(folder / "second")]
        self._shown = Pair(folder / "certificate.pem", folder / "key.pem")
        self._turn = 0
        self._issuer_keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        self.seals: list[bytes] = []
        self.renew()
        head = (
            f'[server]\nstate_dir = "{self.state_dir}"\n{self._shown.toml()}'
            f'[audit]\nsecret_file = "{self.secret}"\nfile_bytes_max = {_FILE_BYTES}\n'
            f'files_max = 3\n[jwt]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
            f'jwks_file = "{self.key_set}"\n'
        )
        self._config = synthetic_config(head=head)
        (folder / "rbee.toml").write_text(self._config)
        init = [sys.executable, "-m", "rbee", "init", "--config", str(folder / "rbee.toml")]
        subprocess.run(init, check=True, capture_output=True)
        self.admin = (self.state_dir / "admin.key").read_text().strip()
        self.before = read_books(self.state_dir)
        self._audit_thread = 0
        self.start()

    def start(self, through: Sequence[str] = ()) -> int | None:
        """Start the server, and wait until it serves. Returns: its exit code, if it does not."""
        server = self.server = Server(self.folder, self._config, through=through)
        self._is_traced = bool(through)

        def has_settled() -> bool:
            names = {each["event"] for each in server.events}
            return "serving" in names or server.process.poll() is not None

        wait_until(has_settled, HEAL_S, "it serves, or ends")
        if server.process.poll() is None:
            server.ready()
            self._audit_thread = 0
            self.client = self.client_of(self.admin)
        return server.process.poll()

    def client_of(self, bearer: str) -> httpx2.Client:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return httpx2.Client(
            base_url=self.server.url, verify=context, timeout=HEAL_S,
            headers={"Authorization": f"Bearer {bearer}"},
        )  # fmt: skip

    def close(self) -> None:
        self.client.close()
        self.server.close()

    def restarted(self) -> list[str]:
        """Stop it, start it again, and say what is not as it was."""
        before = read_books(self.state_dir)
        self.client.close()
        code = self.server.stop()
        self.server.close()
        problems = [f"ended with {code}"] if code else []
        problems += flaws(self.state_dir, self.seals, before)
        self.start()
        listed = {each["id"]: each["revoked"] is None for each in self.listed()}
        wanted = {row.id: row.revoked_s is None for row in before.rows.values()}
        if {key: listed.get(key) for key in wanted} != wanted:
            problems.append("after a restart other keys are listed")
        return problems

    # --- what a deed works with

    def make(self, _old: str = "") -> httpx2.Response:
        return self.client.post("/v1/rbee/keys", json={"role": "user"})

    def rotate(self, old: str) -> httpx2.Response:
        return self.client.post(f"/v1/rbee/keys/{old}/rotate", json={})

    def revoke(self, old: str) -> httpx2.Response:
        return self.client.delete(f"/v1/rbee/keys/{old}")

    def make_at_last(self) -> str:
        """Have it make a key as soon as all is well again. Returns: its id."""
        until_s = time.monotonic() + HEAL_S
        while (answer := self.make()).status_code != 201:
            assert time.monotonic() < until_s, answer.text
        made: str = answer.json()["id"]
        return made

    def listed(self) -> list[dict[str, Any]]:
        """All keys; none while it knows nobody who may ask."""
        keys: list[dict[str, Any]] = self.client.get("/v1/rbee/keys").json().get("keys", [])
        return keys

    def fill(self) -> None:
        """Have the file of the log so full that the next entry goes into another."""
        folder = place_in(self.state_dir).folder
        while max(folder.glob("*.jsonl")).stat().st_size < _FILE_BYTES:
            self.make_at_last()

    def renew(self) -> None:
        """Put another certificate, another secret and another key set in place."""
        self._turn += 1
        pair = self._pairs[self._turn % 2]
        for source, target in ((pair.key, self._shown.key),
                               (pair.certificate, self._shown.certificate)):  # fmt: skip
            draft = target.with_suffix(".new")
            shutil.copy(source, draft)
            draft.replace(target)
        draft = self.folder / "draft"
        draft.write_text(f"secret number {self._turn} of this trial\n")
        draft.chmod(0o600)
        draft.replace(self.secret)
        write_key_set(draft, jwk(self._issuer_key(self._turn), kid=f"k{self._turn}"))
        draft.replace(self.key_set)
        self.seals.insert(0, seal_key(self.secret))

    def _issuer_key(self, turn: int) -> ec.EllipticCurvePrivateKey:
        return self._issuer_keys[turn % 2]

    def unlike(self, turn: int) -> list[str]:
        """In what the server does not go by what was put in place in that turn."""
        found = []
        pair = self._pairs[turn % 2]
        host, port = self.server.url.removeprefix("https://").split(":")
        shown = ssl.get_server_certificate((host, int(port)), timeout=HEAL_S)
        if shown.split() != pair.certificate.read_text().split():
            found.append("it shows another certificate")
        if turn < self._turn:  # the key set is read at other times as well
            return found
        bearer = sign(claims(), key=self._issuer_key(turn), kid=f"k{turn}")
        with self.client_of(bearer) as client:
            if (answer := client.get("/v1/models")).status_code != 200:
                found.append(f"a JWT of that issuer is answered by {answer.text}")
        return found

    @property
    def turn(self) -> int:
        return self._turn

    # --- the tracer

    def let_trace(self, point: Point) -> None:
        """Be ready for `failing`: nobody traces what is traced since its start."""
        if self._is_traced:
            self.client.close()
            self.server.stop()
            self.server.close()
            self.start()
        if point.deed in _AUDIT_THREAD:
            self.audit_thread()

    @contextlib.contextmanager
    def failing(self, point: Point, trace: Path) -> Iterator[None]:
        """Until the end of the block that call fails, once."""
        assert STRACE is not None
        options = point.options(trace)
        if point.deed in _AUDIT_THREAD:
            options += ["-p", str(self.audit_thread())]
        else:
            options += [*self.paths(point), "-f", "-p", str(self.server.pid)]
        tracer = subprocess.Popen([STRACE, *options], stderr=subprocess.PIPE)
        assert tracer.stderr is not None
        try:
            line = tracer.stderr.readline()
            assert b"attached" in line, line
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=10)

    def paths(self, point: Point) -> list[str]:
        """The files whose calls are counted, as options of strace."""
        files = [self.state_dir / f"{FILE_NAME}{end}" for end in ("", "-wal", "-shm")]
        if point.phase == "reload":
            shown = self._shown
            files = [self.folder, self.secret, self.key_set, shown.certificate, shown.key]
        return [word for file in files for word in ("-P", str(file))]

    def audit_thread(self) -> int:
        """It alone takes the lock of the log. Makes a key, the first time."""
        if self._audit_thread:
            return self._audit_thread
        assert STRACE is not None
        trace = self.folder / "flocks"
        options = ["-f", "-e", "trace=flock", "-o", str(trace), "-p", str(self.server.pid)]
        tracer = subprocess.Popen([STRACE, *options], stderr=subprocess.PIPE)
        assert tracer.stderr is not None
        tracer.stderr.readline()
        self.make_at_last()
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)
        self._audit_thread = int(trace.read_text().split()[0])
        return self._audit_thread
