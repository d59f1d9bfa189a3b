"""The load client against the real `rbee serve`: nothing is lost, doubled or refused."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import load_client
import pytest
from processes import Running
from servers import STARTS, Counting

BENCHMARKS = Path(load_client.__file__).parent
COUNTING = Counting(streams=40, tokens_per_s=50.0)
COMPLETION = json.dumps(
    {"model": "synthetic", "messages": [{"role": "user", "content": "count"}], "max_tokens": 1}
)


@pytest.fixture(scope="module")
def client() -> Path:
    return load_client.build()


@pytest.fixture(scope="module")
def server(client: Path) -> Iterator[Running]:
    with STARTS["rbee"](COUNTING) as running:
        yield running


def test_steady_streams_get_every_token_once(server: Running) -> None:
    marks: list[str] = []
    found = load_client.run(
        "steady", server.port, marks.append, streams=20, tokens_per_s=50.0, ramp_s=0.2,
        measure_s=0.5,
    )  # fmt: skip
    assert marks == ["begin", "end"]
    assert found["faults"] == {}
    assert (found["whole"], found["lost"], found["duplicated"]) == (20, 0, 0)
    assert found["tokens"] == 20 * found["tokens_expected"]
    assert 0 < found["window_tokens"] <= found["tokens"]


def test_streams_that_hang_up_after_the_window_leave_no_gap(server: Running) -> None:
    found = load_client.run(
        "steady", server.port, streams=10, tokens_per_s=50.0, ramp_s=0.1, measure_s=0.3,
        hang_up=True,
    )  # fmt: skip
    assert found["hung_up"] == 10
    assert (found["errors"], found["lost"], found["duplicated"]) == (0, 0, 0)


def test_streams_that_come_end_and_hang_up_are_all_accounted_for(server: Running) -> None:
    found = load_client.run(
        "churn", server.port, run_s=1.0, begins_per_s=60.0, streams=40, tokens_min=2,
        tokens_max=20, hang_up_part=0.3,
    )  # fmt: skip
    assert found["faults"] == {}
    assert found["whole"] > 0
    assert found["hung_up"] > 0
    assert found["whole"] + found["hung_up"] == found["streams"]
    assert found["streams"] + found["skipped"] == 60
    assert (found["lost"], found["duplicated"]) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/models", False), ("/health/ready", False), ("/v1/chat/completions", COMPLETION)],
)
def test_closed_loops_are_answered(server: Running, path: str, body: str | bool) -> None:
    found = load_client.run(
        "closed", server.port, connections=20, warm_s=0.1, measure_s=0.4, path=path, body=body
    )
    assert found["faults"] == {}
    assert found["answers"] > 0


def test_every_probe_is_answered(server: Running) -> None:
    found = load_client.run(
        "probe", server.port, connections=4, probes_per_s=50.0, run_s=0.5, path="/health/ready"
    )
    assert found["faults"] == {}
    assert found["answers"] == found["probes"] == 25


def test_idle_connections_are_held(server: Running) -> None:
    found = load_client.run("idle", server.port, connections=50, hold_s=0.2, path="/health/ready")
    assert found["faults"] == {}
    assert (found["open_at_begin"], found["open_at_end"]) == (50, 50)


def test_a_burst_tells_the_tokens_that_the_answers_tell(server: Running, tmp_path: Path) -> None:
    bodies = tmp_path / "bodies"
    body = json.loads(COMPLETION) | {"stream": True, "stream_options": {"include_usage": True}}
    lines = [json.dumps(body | {"max_tokens": tokens}) for tokens in (1, 2, 7)]
    bodies.write_text("\n".join(lines), "utf-8")
    found = load_client.run("burst", server.port, bodies=str(bodies))
    assert found["faults"] == {}
    assert (found["whole"], found["usage_tokens"]) == (3, 10)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("streaming.py", ["--servers", "rbee", "uvicorn", "--streams", "10", "--rounds", "1",
                          "--ramp-s", "0.1", "--measure-s", "0.5", "--probes-per-s", "20"]),
        ("growth.py", ["--servers", "rbee", "--streams", "5", "10", "--rounds", "1",
                       "--measure-s", "0.5"]),
        ("plain_requests.py", ["--servers", "rbee", "--connections", "10", "--rounds", "1",
                               "--warm-s", "0.1", "--measure-s", "0.3"]),
        ("idle_connections.py", ["--servers", "rbee", "--connections", "50", "--rounds", "1",
                                 "--hold-s", "0.2"]),
        ("restarts.py", ["--kills", "2"]),
    ],
)  # fmt: skip
def test_each_script_runs_through_and_prints_its_table(
    client: Path, script: str, arguments: list[str]
) -> None:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    head, rule, *rows = [line for line in ran.stdout.splitlines() if line]
    assert head.startswith("| ")
    assert set(rule) <= set("|-:")
    assert rows


def test_churn_finds_every_descriptor_closed(client: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "churn.py"), "--json", "--run-s", "3"]
    command += ["--warm-s", "1", "--begins-per-s", "30", "--tokens-max", "20"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = json.loads(ran.stdout)
    assert found["report"]["faults"] == {}
    assert found["descriptors_after"] <= found["descriptors_before"]
