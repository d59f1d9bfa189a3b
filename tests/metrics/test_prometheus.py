"""What deploy/ has for Prometheus, tried with Prometheus itself where it is installed."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.e2e.server import NO_TLS, serving, synthetic_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/prometheus"
SCRAPED_WITHIN_S = 60


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def own_config(folder: Path, **changes: Any) -> Path:
    """The shipped configuration with what a test must change, and the rules beside it."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
    config["scrape_configs"][0].update(changes)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    (folder / "rbee.rules.yml").write_bytes((DEPLOY / "rbee.rules.yml").read_bytes())
    return path


def test_rules_and_configuration_are_what_promtool_takes(tmp_path: Path) -> None:
    promtool = program("promtool")
    run(promtool, "check", "rules", str(DEPLOY / "rbee.rules.yml"))
    key = tmp_path / "rbee.key"
    key.write_text("a key\n")
    config = own_config(tmp_path, authorization={"credentials_file": str(key)})
    run(promtool, "check", "config", str(config))


def test_each_alert_is_raised_when_it_should_be_and_not_else() -> None:
    promtool = program("promtool")
    run(promtool, "test", "rules", str(ROOT / "tests/metrics/rules_test.yml"))


def test_a_page_has_nothing_that_promtool_would_have_otherwise(tmp_path: Path) -> None:
    promtool = program("promtool")
    with serving(tmp_path, synthetic_config()) as server:
        assert server.chat("hello", max_tokens=5).status_code == 200
        page = server.get("/metrics").content
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_prometheus_scrapes_a_real_server_and_raises_no_alert(tmp_path: Path) -> None:
    prometheus = program("prometheus")
    with serving(tmp_path, synthetic_config()) as server:
        target = {"targets": [server.url.removeprefix("http://")]}
        config = own_config(tmp_path, static_configs=[target], authorization=None)
        url = f"http://127.0.0.1:{free_port()}"
        process = subprocess.Popen(
            [
                prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={url.removeprefix('http://')}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            look = Look(url)
            look.wait('up{job="rbee"}', lambda values: values == [1.0])
            for _ in range(3):
                assert server.chat("hello", max_tokens=20).status_code == 200
            look.wait('rbee_requests_total{outcome="ok"}', lambda values: values == [3.0])
            look.wait("rbee_completion_tokens_total", lambda values: values == [60.0])
            look.wait("rbee:failed_answers:total", lambda values: values == [0.0])
            look.wait('ALERTS{alertstate="firing"}', lambda values: values == [])
            rules = look.get("/api/v1/rules")["groups"]
            health = {rule["name"]: rule["health"] for group in rules for rule in group["rules"]}
            assert set(health.values()) == {"ok"}, health
            assert "RbeeDown" in health
        finally:
            process.terminate()
            process.wait(20)


class Look:
    """Asks Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **query: str) -> Any:
        answer = httpx2.get(self._url + path, params=query, timeout=10, verify=NO_TLS)
        return answer.raise_for_status().json()["data"]

    def wait(self, query: str, is_right: Callable[[list[float]], bool]) -> None:
        until_s, values = time.monotonic() + SCRAPED_WITHIN_S, None
        while time.monotonic() < until_s:
            try:
                found = self.get("/api/v1/query", query=query)["result"]
            except httpx2.HTTPError:  # it is not up yet
                found = None
            if found is not None:
                values = [float(each["value"][1]) for each in found]
                if is_right(values):
                    return
            time.sleep(0.2)
        targets = self.get("/api/v1/targets")["activeTargets"]
        problems = [each["lastError"] for each in targets]
        raise AssertionError(f"{query} is {values}; scrapes: {problems}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
