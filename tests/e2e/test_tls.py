"""A real server under TLS, and SIGHUP: certificates change, and nobody is cut off."""

import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.certificates import Pair, make_pair, needs_openssl
from tests.cli.running import run_rbee
from tests.e2e.server import Server, serving, synthetic_config, wait_until

pytestmark = needs_openssl


class TlsServer:
    """A server with its certificate."""

    def __init__(self, server: Server, pair: Pair) -> None:
        self.server = server
        self.pair = pair

    def client(self) -> httpx2.Client:
        context = ssl.create_default_context(cafile=str(self.pair.certificate))
        return httpx2.Client(base_url=self.server.url, verify=context, timeout=20)

    def shown(self) -> bytes:
        """The certificate that a new connection is shown."""
        host, port = self.server.url.removeprefix("https://").split(":")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((host, int(port)), 10) as sock,
            context.wrap_socket(sock) as wrapped,
        ):
            shown = wrapped.getpeercert(binary_form=True)
            assert shown is not None
            return shown


@contextmanager
def serving_tls(folder: Path) -> Iterator[TlsServer]:
    pair = make_pair(folder / "tls")
    head = f'[log]\nlevel = "debug"\n{pair.toml()}'
    with serving(folder, synthetic_config(head=head)) as server:
        yield TlsServer(server, pair)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """One for all: it may be reloaded, and is not stopped."""
    with serving_tls(tmp_path_factory.mktemp("box")) as box:
        yield box


def completion(tokens: int) -> dict[str, Any]:
    return {"model": "synthetic", "prompt": "count", "max_tokens": tokens, "stream": True}


def test_both_faces_answer_under_tls_and_the_url_says_so(box: TlsServer) -> None:
    assert box.server.url.startswith("https://127.0.0.1:")
    with box.client() as client:
        hot = client.post("/v1/completions", json={**completion(3), "stream": False})
        assert hot.json()["choices"][0]["text"] == "0 1 2 "
        assert client.get("/v1/rbee/workers").status_code == 200  # not on the lane
        assert client.get("/health/ready").json() == {"status": "ok"}
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(box.server.url.replace("https:", "http:") + "/health/live", timeout=5)
    box.server.wait_event("tls_failed", 10, reason="HTTP_REQUEST")


def test_commands_reach_it_by_its_certificate_and_trust_no_other(
    box: TlsServer, tmp_path: Path
) -> None:
    url = box.server.url
    other = make_pair(tmp_path / "other")
    unknown = run_rbee("status", "--url", url, cwd=tmp_path)
    wrong = run_rbee("status", "--url", url, "--ca-file", str(other.certificate), cwd=tmp_path)
    none = run_rbee("status", "--url", url, "--ca-file", "none.pem", cwd=tmp_path)
    right = run_rbee("status", "--url", url, "--ca-file", str(box.pair.certificate), cwd=tmp_path)
    assert (unknown.returncode, wrong.returncode, none.returncode) == (69, 69, 64)
    assert "proves nothing" in unknown.stderr
    assert "none.pem: No such file or directory" in none.stderr
    assert (right.returncode, url in right.stdout) == (0, True)

    # Without --url: the server of ./rbee.toml, by the certificate that stands there.
    port = url.rpartition(":")[2]
    head = f'[server]\nbind = "127.0.0.2:{port}"\n'  # no name of the certificate
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "rbee.toml").write_text(head + box.pair.toml())
    away = run_rbee("workers", "list", cwd=folder)
    assert "no rbee server answers" in away.stderr  # but it was asked under TLS
    (folder / "rbee.toml").write_text(head.replace("127.0.0.2", "127.0.0.1") + box.pair.toml())
    asked = run_rbee("chat", "count", "--max-tokens", "3", cwd=folder)
    assert asked.stdout.split() == ["0", "1", "2"]


def test_a_new_certificate_is_shown_after_sighup_and_a_running_stream_goes_on(
    box: TlsServer, tmp_path: Path
) -> None:
    with (
        box.client() as client,
        client.stream("POST", "/v1/completions", json=completion(200)) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        before = box.shown()
        box.pair.replace_with(make_pair(tmp_path / "new"))
        box.server.signal(signal.SIGHUP)
        box.server.wait_event("config_reloaded", 10, changed=["tls.certificate_file"])
        assert box.shown() != before
        assert [line for line in lines if line][-1] == "data: [DONE]"
    with box.client() as client:
        assert client.get("/health/live").status_code == 200


def test_a_storm_of_sighups_loses_no_request(box: TlsServer) -> None:
    has_ended = threading.Event()
    sent = 0

    def storm() -> None:
        nonlocal sent
        while not has_ended.is_set():
            box.server.signal(signal.SIGHUP)
            sent += 1

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        wait_until(lambda: sent > 100, 20, "signals are sent")
        for _ in range(5):
            with box.client() as client:  # each time a new handshake
                answer = client.post("/v1/completions", json={**completion(20), "stream": False})
                assert answer.json()["choices"][0]["finish_reason"] == "length"
    finally:
        has_ended.set()
        thread.join()
        assert box.server.process.poll() is None, box.server.log
    assert sent > 1000


def test_silent_connections_keep_nobody_out(box: TlsServer) -> None:
    host, port = box.server.url.removeprefix("https://").split(":")
    silent = [socket.create_connection((host, int(port)), 10) for _ in range(200)]
    try:
        for sock in silent[:100]:
            sock.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")  # the begin of a handshake
        with box.client() as client:
            assert client.get("/health/ready").json() == {"status": "ok"}
    finally:
        for sock in silent:
            sock.close()


def test_without_tls_sighup_finds_nothing_changed_also_after_nohup(tmp_path: Path) -> None:
    server = Server(tmp_path, synthetic_config(), through=["nohup"])
    try:
        server.ready().signal(signal.SIGHUP)
        server.wait_event("config_reloaded", 10, changed=[])
        assert server.chat("still there?", max_tokens=2).status_code == 200
        assert server.stop() == 0
    finally:
        server.close()


@pytest.mark.parametrize(("through", "ends"), [([], True), (["nohup"], False)])
def test_a_server_ends_with_its_terminal_but_not_after_nohup(
    through: list[str], ends: bool, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    (tmp_path / "rbee.toml").write_text(synthetic_config())
    command = [sys.executable, "-m", "rbee", "serve", "--config", str(tmp_path / "rbee.toml")]
    options = ["--bind", "127.0.0.1:0", "--run-dir", str(tmp_path / "run"), "--log-format", "json"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["setsid", "--ctty", *through, *command, *options],
            stdin=theirs, stdout=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip
    os.close(theirs)

    def logged(event: str) -> bool:
        return f'"event":"{event}"' in (tmp_path / "log").read_text()

    try:
        wait_until(lambda: logged("serving"), 60, "it serves")
        process.send_signal(signal.SIGHUP)  # the terminal is there: a reload
        wait_until(lambda: logged("config_reloaded"), 10, "it reloads")
        os.close(ours)  # the terminal closes, and the kernel sends SIGHUP to whom it led
        if ends:
            assert process.wait(20) == 0
            assert logged("supervisor_stopped")
        else:
            wait_until(
                lambda: (tmp_path / "log").read_text().count("config_reloaded") > 1, 10, "it"
            )
            assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
