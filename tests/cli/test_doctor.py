"""`rbee doctor`: what each check makes of what it finds."""

import errno
import fcntl
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rbee.cli.address import Address
from rbee.cli.checks import gpu, limits, place, secrecy, software, system
from rbee.cli.checks.finding import Finding, examine
from rbee.config import AuditConfig, Config, ModelConfig, ServerConfig, TlsConfig
from rbee.errors import ExitCode
from rbee.supervisor.cgroup import Means, foresee, own_places
from rbee.supervisor.devices import Gpu
from rbee.supervisor.worker_user import WorkerUser
from tests.certificates import Pair, make_pair, needs_openssl
from tests.cli.answering import Answers, serving
from tests.cli.running import TIMEOUT_S, run_rbee
from tests.supervisor.held import opened_ground

INFINITY = resource.RLIM_INFINITY
NOBODY = WorkerUser("nobody", 65534, 65534, (65534,), "/nonexistent")


@pytest.fixture
def good_config(tmp_path: Path) -> Path:
    """A configuration with nothing wrong: a free port, a run directory of its own."""
    file = tmp_path / "good.toml"
    run_dir = tmp_path / "run"
    file.write_text(
        f'[server]\nbind = "127.0.0.1:0"\nrun_dir = "{run_dir}"\n[[model]]\nref = "synthetic"\n'
    )
    return file


def test_doctor_finds_nothing_failed_on_a_good_machine(good_config: Path) -> None:
    done = run_rbee("doctor", "--config", str(good_config), "--json")
    findings = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, findings
    assert findings["models"]["found"] == "synthetic-0: synthetic"
    assert findings["llamacpp"]["verdict"] == "ok"
    assert len(findings) == 23
    assert not (good_config.parent / "run").exists(), "doctor changes nothing"


def test_doctor_tells_what_failed_and_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "rbee.toml").write_text("[server]\nbnid = 1\n")
    done = run_rbee("doctor", cwd=tmp_path)
    assert done.returncode == 1
    line, mend = next(
        pair for pair in zip(done.stdout.splitlines(), done.stdout.splitlines()[1:], strict=False)
        if pair[0].startswith("fail  config")
    )  # fmt: skip
    assert "rbee.toml: server: unknown key 'bnid'; did you mean 'bind'?" in line
    assert mend.strip().startswith("mend: mend it, then: rbee config check")
    assert done.stdout.splitlines()[-1].startswith("failed: ")


def test_doctor_looks_on_where_packages_are_missing(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules |= dict.fromkeys(['zmq', 'pynvml', 'msgspec', 'rich'])\n"
        "from rbee.__main__ import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok", "warn", "fail "))]
    assert len(lines) == 23
    failed = [line for line in lines if "cannot be checked: import of" in line]
    assert [line.split()[1] for line in failed] == [
        "gpu", "exllamav2", "cuda", "config", "worker", "cgroups", "models", "run", "local", "port",
        "keys", "secrets", "certificate", "disk",
    ]  # fmt: skip


def test_prepare_without_the_libraries_says_what_to_install() -> None:
    if software._is_there("torch"):  # then the build itself is what the GPU tests run
        pytest.skip("torch is installed here")
    done = run_rbee("doctor", "--prepare")
    assert done.returncode == ExitCode.CONFIG
    assert "pip install 'rbee[exllamav2]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_that_breaks_is_a_finding() -> None:
    def broken() -> Finding:
        raise ZeroDivisionError("so it goes")

    finding = examine("clock", broken)
    assert finding.verdict == "fail"
    assert finding.found == "the check broke: ZeroDivisionError: so it goes"


def test_what_is_not_ok_must_say_how_to_mend_it() -> None:
    with pytest.raises(AssertionError):
        Finding("x", "fail", "y")


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("7.2.2", ">=7,<8", True),
        ("8.0", ">=7,<8", False),
        ("7", ">=7.0.0", True),
        ("0.18.0", ">=0.18,<0.19", True),
        ("0.19.0", ">=0.18,<0.19", False),
        ("2026.10.11549", "==2026.10.11549", True),
        ("2026.10.11550", "==2026.10.11549", False),
        ("2.14.0+cu130", ">=2.9,<2.14", False),
        ("1", "", True),
    ],
)
def test_versions_are_held_against_ranges(version: str, wanted: str, fits: bool) -> None:
    assert software.is_in_range(version, wanted) is fits


def test_packages_that_are_wrong_come_with_the_command_that_mends_them() -> None:
    requirements = [("trio", ">=0.31,<0.36"), ("rich", ">=14,<16"), ("gone", ">=1")]
    finding = software.judge_packages(
        requirements, {"trio": "0.40.0", "rich": "15.0.0", "gone": None}
    )
    assert finding.verdict == "fail"
    assert finding.found == "trio 0.40.0 (needs >=0.31,<0.36), gone missing (needs >=1)"
    assert finding.mend.endswith("-m pip install 'trio>=0.31,<0.36' 'gone>=1'")


def test_packages_of_this_installation_are_in_their_ranges() -> None:
    assert software.check_packages().verdict == "ok"
    assert len(software._declared_requirements()) >= 10


def test_old_python_fails() -> None:
    assert software.check_python((3, 10, 9)).verdict == "fail"
    assert software.check_python((3, 14, 0)).verdict == "ok"


def test_library_that_dies_when_imported_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    (tmp_path / "broken.py").write_text("raise ImportError('libx.so.1 is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert software._check_import("deadly", "x").found == (
        "importing deadly ends the process with SIGILL"
    )
    assert "libx.so.1 is not there" in software._check_import("broken", "x").found
    assert software._check_import("nowhere", "x").found == "nowhere is not installed"


def test_gpu_in_the_box_that_nvml_does_not_show_fails(tmp_path: Path) -> None:
    for name, vendor, kind in [
        ("a", "0x10de", "0x030200"),
        ("b", "0x10de", "0x040300"),  # the sound device of a board
        ("c", "0x8086", "0x030000"),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert gpu.count_boards(tmp_path) == 1
    assert gpu.count_boards(tmp_path / "none") == 0
    assert gpu.judge_absence("NVML: not found", 1).verdict == "fail"
    assert gpu.judge_absence("NVML: not found", 0).verdict == "ok"


def test_a_gpu_that_is_hot_or_tells_too_little_is_a_warning() -> None:
    def judge(**more: Any) -> Finding:
        return gpu.judge_boards([Gpu(0, "a GPU", 80, 80, **more)], "0: a GPU")

    told = {"temperature_c": 60, "temperature_limit_c": 90, "held_bytes": {}}
    assert judge(**told).verdict == "ok"
    hot = judge(**{**told, "temperature_c": 90})
    assert (hot.verdict, "GPU 0 has 90 C, its limit is 90 C" in hot.found) == ("warn", True)
    blind = judge(**{**told, "held_bytes": None})
    assert blind.verdict == "warn"
    assert "does not tell what each process holds" in blind.found


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (system.judge_files(256, 256), "fail"),
        (system.judge_files(256, 1024), "warn"),
        (system.judge_files(256, 4096), "ok"),
        (system.judge_files(65_536, INFINITY), "ok"),
        (system.judge_files(INFINITY, INFINITY), "ok"),
        (system.judge_core_dumps(0), "ok"),
        (system.judge_core_dumps(INFINITY), "warn"),
        (system.judge_locked_memory(0), "warn"),
        (system.judge_locked_memory(INFINITY), "ok"),
        (system.judge_confinement(""), "ok"),
        (system.judge_confinement("no Landlock: Function not implemented"), "warn"),
        (system.check_worker_user(""), "ok"),
        (system.check_worker_user("nobody-here"), "fail"),
        (system.judge_worker_user(NOBODY, ""), "ok"),
        (system.judge_worker_user(NOBODY, "root lacks CAP_SETUID here"), "warn"),
        (system.judge_disk(Path("/x"), 10), "fail"),
        (system.judge_disk(Path("/x"), 100 << 20), "warn"),
        (system.judge_disk(Path("/x"), 10 << 30), "ok"),
        (system.judge_clock(0, 0), "fail"),
        (system.judge_clock(1.8e9, 5), "warn"),
        (system.judge_clock(1.8e9, 0), "ok"),
        (system.judge_clock(1.8e9, -1), "ok"),
    ],
    ids=str,
)
def test_limits_are_judged(finding: Finding, verdict: str) -> None:
    assert finding.verdict == verdict


def limited(**limits: Any) -> Config:
    return Config(model=(ModelConfig(ref="synthetic", **limits),))


NO_CGROUPS = Means(problems=("kill: not mounted", "cpu: not mounted"))
CGROUPS = Means("cgroup2", "cgroup1", "cgroup1", "cgroup1")


@pytest.mark.parametrize(
    ("means", "config", "verdict", "words"),
    [
        (CGROUPS, limited(cpus=1.0), "ok", "memory: cgroup1"),
        (NO_CGROUPS, limited(cpus=1.0), "fail", "cpus cannot be held here (cpu: not mounted)"),
        (NO_CGROUPS, limited(memory_bytes_max=1 << 30), "warn", "only watched"),
        (NO_CGROUPS, limited(), "warn", "may be missed"),
    ],
    ids=["held", "not held", "watched", "not killed together"],
)
def test_what_can_hold_the_limits_is_told(
    means: Means, config: Config, verdict: str, words: str
) -> None:
    finding = limits.judge_means(means, config)
    assert finding.verdict == verdict
    assert words in finding.found


def test_what_is_foreseen_is_what_a_server_then_finds() -> None:
    foreseen = foresee(own_places())
    with opened_ground(own_places(), "memory", "cpu", "pids") as ground:
        assert ground.means == foreseen


def test_run_dir_that_is_held_or_left_is_told(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    assert place.check_run_dir(str(run_dir)).found == f"{run_dir}, free"
    with (run_dir / "lock").open("w") as lock:
        lock.write("4242\n")
        lock.flush()
        assert place.check_run_dir(str(run_dir)).found.endswith("free; 0 left sockets go at the "
                                                                "next start")  # fmt: skip
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = place.check_run_dir(str(run_dir))
    assert (held.verdict, held.found) == (
        "warn",
        f"{run_dir} is held by a running rbee, pid 4242",
    )


def test_run_dir_that_cannot_be_used_fails(tmp_path: Path) -> None:
    open_dir = tmp_path / "open"
    open_dir.mkdir()
    open_dir.chmod(0o755)
    assert place.check_run_dir(str(open_dir)).mend == f"chmod 700 {open_dir}"
    file = tmp_path / "file"
    file.touch()
    assert place.check_run_dir(str(file)).verdict == "fail"
    assert place.check_run_dir(str(file / "below")).verdict == "fail"
    assert place.check_run_dir(f"/{'x' * 120}").found.endswith("is longer than 90 bytes")
    assert place.judge_run_dir(open_dir, stat.S_IFDIR | 0o700, 1, 2) == (
        f"{open_dir} belongs to uid 1",
        "set another server.run_dir",
    )


def config_at(bind: str) -> Config:
    return Config(server=ServerConfig(bind=bind))


def test_port_that_is_taken_names_a_running_rbee(tmp_path: Path) -> None:
    with serving(Answers()) as url:
        bind = url.removeprefix("http://")
        taken = place.check_port(config_at(bind))
    assert (taken.verdict, taken.found) == ("warn", f"an rbee server runs at {bind}")
    assert place.check_port(config_at(bind)).found == f"{bind} is free"


def test_port_that_cannot_be_had_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        refused = OSError(errno.EACCES, os.strerror(errno.EACCES))
        assert "ports below 1024" in place.judge_bind_error(bind, 80, Address(""), refused).mend
        assert "[::1]:7233" in place.check_port(config_at("::1:80")).found
        assert place.check_port(config_at("0.0.0.0:80")).verdict == "fail"
        assert place.check_port(config_at("127.0.0.1:0")).verdict == "ok"


def test_model_that_is_not_there_fails() -> None:
    config = Config(model=(ModelConfig(ref="file:/nowhere/at/all.gguf"),))
    finding = place.check_models(config)
    assert finding.verdict == "fail"
    assert "all" in finding.found


def test_secrets_are_checked_as_the_server_would(tmp_path: Path) -> None:
    assert secrecy.check_secrets(Config()).found == "none is configured"
    file = tmp_path / "secret"
    file.write_text("a line\n")
    file.chmod(0o600)
    config = Config(audit=AuditConfig(secret_file=str(file)))
    assert secrecy.check_secrets(config).verdict == "ok"
    file.chmod(0o644)
    assert "must be closed to others" in secrecy.check_secrets(config).found


@needs_openssl
def test_a_certificate_is_told_with_the_days_it_holds_for(tmp_path: Path) -> None:
    assert secrecy.check_certificate(Config()).verdict == "ok"

    def check(pair: Pair) -> Finding:
        files = {"certificate_file": str(pair.certificate), "key_file": str(pair.key)}
        return secrecy.check_certificate(Config(tls=TlsConfig(**files)))

    assert check(make_pair(tmp_path / "good")).verdict == "ok"
    assert check(make_pair(tmp_path / "soon", days=3)).verdict == "warn"
    for_clients = make_pair(tmp_path / "clients", "-addext", "extendedKeyUsage=clientAuth")
    assert "clients refuse" in check(for_clients).found
    for_clients.key.unlink()
    assert "cannot be opened" in check(for_clients).found
