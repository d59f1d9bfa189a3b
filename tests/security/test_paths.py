"""What a client names is not looked for on the disk, or in the network: the kernel is watched."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from tests.e2e.server import NO_TLS, Server, wait_until

MARK = "evil-mark"  # in each name; no call to the kernel may hold it

# Ways out of a folder, to another host, into a shell, and what confuses readers of names.
FORMS = (
    "{}", "/{}", "../{}", "../../../../{}", "..\\{}", "a/../../{}", "./{}", "//{}", "file:{}",
    "file:///{}", "file:../{}", "hf:{}/x", "hf:../{}", "https://{}.example/x", "http://{}@[::1]/",
    "ipc://{}", "{}.gguf", "{}/config.json", "~/{}", "$({})", "`{}`", "{};id", "|{}", "%2e%2e%2f{}",
    "{}%00.gguf", "\u2025/{}", "{}\u202e", "CON/{}", "-{}", "--{}", "@{}", "{}?x", "{}#x", "*{}*",
)  # fmt: skip
RESPONSES = (400, 404, 405, 413, 422)


@contextmanager
def calls_of(pid: int, told: Path) -> Iterator[None]:
    """Write all that the process opens, starts or connects to into a file."""
    command = ["strace", "-f", "-qq", "-s", "400", "-e", "trace=%file,connect"]
    with subprocess.Popen([*command, "-o", str(told), "-p", str(pid)]) as strace:
        try:
            wait_until(lambda: f"\t{strace.pid}\n" in status(pid), 10, "strace looks on")
            yield
        finally:
            strace.terminate()


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text("utf-8")


@pytest.mark.skipif(shutil.which("strace") is None or os.geteuid() != 0, reason="needs strace")
def test_no_name_from_a_client_reaches_the_kernel(plain_server: Server, tmp_path: Path) -> None:
    told = tmp_path / "calls"
    names = [form.format(MARK) for form in FORMS]
    with (
        calls_of(plain_server.pid, told),
        httpx2.Client(base_url=plain_server.url, verify=NO_TLS) as client,
    ):
        for name in names:
            for path in ("/v1/models/{}", "/v1/rbee/crashes/{}", "/v1/no/such/{}"):
                assert client.get(path.format(quote(name, safe=""))).status_code in RESPONSES
            client.delete(f"/v1/requests/{quote(name, safe='')}")  # succeeds where there is none
            restart = f"/v1/rbee/workers/{quote(name, safe='')}/restart"
            assert client.post(restart).status_code in RESPONSES
            for body in bodies(name):
                answer = client.post("/v1/chat/completions", json=body)
                assert answer.status_code in RESPONSES, body
        [before] = plain_server.worker_pids()
        assert client.post("/v1/rbee/workers/synthetic-0/restart").status_code == 202
        wait_until(lambda: before not in plain_server.worker_pids(), 20, "another worker")
        wait_until(lambda: plain_server.get("/health/ready").is_success, 20, "which is ready")
    seen = told.read_text("utf-8", "replace")
    assert "execve(" in seen, "what the server does otherwise is seen"
    assert MARK not in seen


def bodies(name: str) -> Iterator[dict[str, object]]:
    """The name wherever a server might take it for a place."""
    message = {"role": "user", "content": "hi"}
    url = f"https://{MARK}.example/{name}"
    yield {"model": name, "messages": [message]}
    yield {"model": "synthetic", "messages": [message], "chat_template": name}
    yield {"model": "synthetic", "messages": [message], "lora": name, "n_discard": -1}
    part = {"type": "image_url", "image_url": {"url": url}}
    yield {"model": "synthetic", "messages": [{"role": "user", "content": [part]}]}
