"""Prometheus itself takes what deploy/ has for it: its tool the rules, its server a real scrape.

Both programs are Prometheus' own, and are no package of Python: where they are not there, these
tests are skipped and say which one is missing.
"""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from tests.e2e.server import NO_TLS, Server, serving, synthetic_config, wait_until
from tests.metrics.test_deploy import ALERTS, CONFIG, RECORDS, TARGETS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rbee.rules.yml"
RULES_TEST = ROOT / "tests/metrics/rules_test.yml"

TIMEOUT_S = 60


def found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"there is no {program} on this machine")
    return path


def promtool(*arguments: str | Path) -> str:
    """Run it. Returns: what it says, of a run that went well."""
    command = [found("promtool"), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def config_for(folder: Path, key_file: Path, target: str) -> Path:
    """The shipped configuration, for a key and a server of the test, and in more haste."""
    config = json.loads(json.dumps(CONFIG))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (scrape,) = config["scrape_configs"]
    scrape["authorization"]["credentials_file"] = str(key_file)
    scrape["static_configs"] = [{"targets": [target]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    shutil.copy(RULES, folder)
    return path


# --- promtool


def test_the_rules_are_rules() -> None:
    assert f"{len(ALERTS) + len(RECORDS)} rules found" in promtool("check", "rules", RULES)


def test_the_configuration_is_one(tmp_path: Path) -> None:
    found("promtool")
    key_file = tmp_path / "key"
    key_file.write_text("a key\n")
    promtool("check", "config", config_for(tmp_path, key_file, "127.0.0.1:7233"))
    # As it is shipped it names a key that is not here.
    promtool("check", "config", "--syntax-only", ROOT / "deploy/prometheus/prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_when_all_is_well() -> None:
    promtool("test", "rules", RULES_TEST)


def test_a_page_has_nothing_that_promtool_would_have_otherwise(tmp_path: Path) -> None:
    program = found("promtool")
    with serving(tmp_path, synthetic_config()) as server:
        assert server.chat("hello", max_tokens=5).status_code == 200
        page = server.get("/metrics").content
    ran = subprocess.run(
        [program, "check", "metrics"], input=page, capture_output=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


# --- Prometheus


class Prometheus:
    """A running one, asked over its HTTP API."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, timeout=10, verify=NO_TLS)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        """Each series with its labels and its value now."""
        result = self.get("query", query=text)["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    def is_ready(self) -> bool:
        try:
            return bool(self._client.get("/-/ready").status_code == 200)
        except httpx2.TransportError:
            return False

    def targets(self) -> list[dict[str, Any]]:
        active: list[dict[str, Any]] = self.get("targets", state="active")["activeTargets"]
        return active


@contextmanager
def watching(folder: Path, config: Path) -> Iterator[Prometheus]:
    """A Prometheus that has read the configuration."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = folder / "prometheus.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [
                found("prometheus"), f"--config.file={config}", f"--web.listen-address={address}",
                f"--storage.tsdb.path={folder / 'data'}",
            ],
            stdout=sink, stderr=sink, cwd=folder,
        )  # fmt: skip
    prometheus = Prometheus(f"http://{address}")
    try:

        def is_ready_or_over() -> bool:
            assert process.poll() is None, log.read_text()
            return prometheus.is_ready()

        wait_until(is_ready_or_over, TIMEOUT_S, "Prometheus is ready")
        yield prometheus
    finally:
        prometheus.close()
        process.terminate()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
            raise


def rbee(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "rbee", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """A store with a key for the user of the test, and one for Prometheus."""
    state_dir, key_file = tmp_path / "state", tmp_path / "rbee.key"
    rbee("init", "--state-dir", state_dir)
    rbee("keys", "create", "--role", "viewer", "--state-dir", state_dir, "--key-file", key_file)
    return {"state_dir": state_dir, "admin": state_dir / "admin.key", "viewer": key_file}


def ask(server: Server, key_file: Path, content: str) -> int:
    answer = httpx2.post(
        f"{server.url}/v1/chat/completions",
        json={
            "model": "synthetic", "max_tokens": 8,
            "messages": [{"role": "user", "content": content}],
        },
        headers={"Authorization": f"Bearer {key_file.read_text().strip()}"},
        timeout=TIMEOUT_S, verify=NO_TLS,
    )  # fmt: skip
    return answer.status_code


def test_a_real_prometheus_scrapes_a_real_server_and_is_content(
    keys: dict[str, Path], tmp_path: Path
) -> None:
    found("prometheus")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    head = f'[server]\nstate_dir = "{keys["state_dir"]}"\n'
    with serving(tmp_path, synthetic_config(head=head)) as server:
        target = urlsplit(server.url).netloc
        with watching(folder, config_for(folder, keys["viewer"], target)) as prometheus:

            def is_up() -> bool:
                states = {each["health"]: each["lastError"] for each in prometheus.targets()}
                assert "down" not in states, states
                return "up" in states

            wait_until(is_up, TIMEOUT_S, "the target is up")
            # Counters must have been seen before they grow.
            wait_until(lambda: bool(prometheus.query("rbee:answers:total")), TIMEOUT_S, "rules run")
            for number in range(3):
                assert ask(server, keys["admin"], f"question {number}") == 200

            def has_counted() -> bool:
                return bool(prometheus.query('rbee_requests_total{outcome="ok"} == 3'))

            wait_until(has_counted, TIMEOUT_S, "the answers are counted")
            assert ask(server, keys["admin"], "one more") == 200
            for rule in RECORDS:
                name = rule["record"]

                def is_recorded(name: str = name) -> bool:
                    return bool(prometheus.query(f"{name} >= 0"))

                wait_until(is_recorded, TIMEOUT_S, name)

            assert prometheus.query("up")[0] == (
                {"__name__": "up", "job": "rbee", "instance": target}, 1.0,
            )  # fmt: skip
            ((readiness, _),) = prometheus.query("rbee_readiness == 1")
            assert readiness["state"] == "ok"
            assert prometheus.query("rbee:failed_answers:total")[0][1] == 0
            ((first, p95_s),) = prometheus.query("rbee:time_to_first_token_seconds:p95")
            assert first["model"] == "synthetic"
            assert 0 < p95_s < TIMEOUT_S
            assert_rules_are_well(prometheus)
            assert_dashboard_can_be_shown(prometheus, target)


def assert_rules_are_well(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(ALERTS) + len(RECORDS)
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        assert rule.get("state", "inactive") == "inactive", rule


def assert_dashboard_can_be_shown(prometheus: Prometheus, target: str) -> None:
    """Each query is one, and brings something in time unless it cannot here.

    In time: an increase needs two scrapes of its counter, and a worker's memory is told from its
    first beat on.
    """
    for each in TARGETS:
        text = each["expr"].replace("$instance", target).replace("$model", "synthetic")
        text = text.replace("$__rate_interval", "1m")
        has_none = any(part in text for part in ("_gpu_", "_vram_", "_last_shutdown_"))
        may_be_empty = has_none or text.endswith(("> 0", "== 1"))  # the latter tell ills alone

        def is_shown(text: str = text, may_be_empty: bool = may_be_empty) -> bool:
            return bool(prometheus.query(text)) or may_be_empty

        wait_until(is_shown, TIMEOUT_S, text)
