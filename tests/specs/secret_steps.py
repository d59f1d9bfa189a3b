"""The steps of `specs/310-secrets.feature`: secrets' files, and processes as others see them."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil

from rbee.supervisor.kin import MARK_NAME
from rbee.supervisor.launch import ENVIRONMENT_KEPT
from tests.certificates import make_pair
from tests.e2e.server import Server, synthetic_config, wait_until
from tests.specs.runner import Steps
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step

SECRET = "canary-of-the-audit-log"
DOCS = Path(__file__).parents[2] / "docs" / "secrets.md"


def folder(world: World) -> Path:
    path = world.directory / "secrets"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


def configured(world: World, secret_file: str = "", *, server: str = "", rest: str = "") -> str:
    head = f'[server]\nstate_dir = "{world.directory / "state"}"\n{server}\n'
    audit = f'[audit]\nsecret_file = "{secret_file}"\n'
    return synthetic_config(head=f"{head}{audit}{rest}")


def good_secret(world: World) -> Path:
    path = folder(world) / "audit-secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


def audit_lines(world: World) -> list[str]:
    files = sorted((world.directory / "state" / "audit").glob("*.jsonl"))
    return [line for path in files for line in path.read_text().splitlines()]


# Files of secrets.


def behind_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


SPOILERS: dict[str, Callable[[Path], object]] = {
    "readable for the group": lambda path: path.chmod(0o640),
    "behind a symbolic link": behind_link,
    "in a folder that all may write": lambda path: path.parent.chmod(0o777),
}


@step(r"a server whose audit secret is (.*)")
def given_secret(world: World, how: str) -> None:
    path = good_secret(world)
    if how == "a credential of systemd":
        world._config = configured(world, "credential:audit-secret")
        path.chmod(0o400)
        world.start(through=["env", f"CREDENTIALS_DIRECTORY={path.parent}"])
        return
    name = str(path)
    if how == "a credential, without systemd":
        name = "credential:audit-secret"
    else:
        SPOILERS[how](path)
    world._config = configured(world, name)
    world.servers.append(world.server_through(["env", "-u", "CREDENTIALS_DIRECTORY"]))


@step(r'it does not start, with exit code (\d+), and says "(.*)"')
def then_refused(world: World, code: str, said: str) -> None:
    assert world.server.process.wait(30) == int(code)
    world.server.close()
    assert said in world.server.log_text


@step(r"what it says holds nothing of the secret")
def then_silent(world: World) -> None:
    assert SECRET not in world.server.log_text


@step(r"the server with secrets is stopped")
def when_stopped(world: World) -> None:
    assert world.server.stop() == 0


@step(r"the audit log is sealed with that secret")
def then_sealed(world: World) -> None:
    command = [sys.executable, "-m", "rbee", "audit", "verify", "--secret-file"]
    place = [str(folder(world) / "audit-secret"), str(world.directory / "state" / "audit")]
    done = subprocess.run([*command, *place], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(audit_lines(world))} sealed" in done.stdout


# What others can see of its processes.


# Root is closed to nobody, unless both sides have laid down its rights over others.
WITHOUT_RIGHTS: list[str] = (
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
)


@step(r"a server with an audit secret")
def given_server(world: World) -> None:
    world._config = configured(world, str(good_secret(world)))
    world.start(through=WITHOUT_RIGHTS)


@step(r"a server that may be looked into")
def given_dumpable(world: World) -> None:
    world._config = configured(world, str(good_secret(world)), server="dumpable = true")
    world.start(through=WITHOUT_RIGHTS)


LOOK = """
import os, sys
for pid in sys.argv[1:]:
    for name in ("mem", "environ", "fd/0"):
        path = f"/proc/{pid}/{name}"
        try:
            os.readlink(path) if name == "fd/0" else open(path, "rb").close()
        except PermissionError:
            continue
        print(pid, name)
"""


def seen_by_its_user(pids: Iterable[int]) -> list[str]:
    """What a process of the same user can read of them."""
    command = [*WITHOUT_RIGHTS, sys.executable, "-c", LOOK, *map(str, pids)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.splitlines()


def warden(server: Server) -> psutil.Process:
    children = psutil.Process(server.pid).children()
    return next(each for each in children if "rbee.supervisor.warden" in each.cmdline())


def everybody(server: Server) -> list[int]:
    return [server.pid, *(each.pid for each in psutil.Process(server.pid).children(True))]


@step(
    r"another process of the same user can read neither memory, environment nor descriptors of "
    r"the supervisor and its warden"
)
def then_closed(world: World) -> None:
    worker = world.server.worker_pids()[0]
    assert f"{worker} environ" in seen_by_its_user([worker])  # which is not closed
    assert seen_by_its_user([world.server.pid, warden(world.server).pid]) == []


@step(r"no process of the server can leave a core file")
def then_no_core(world: World) -> None:
    for pid in everybody(world.server):
        limits = Path(f"/proc/{pid}/limits").read_text()
        line = next(each for each in limits.splitlines() if each.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"], pid


@step(r'the log warns of "(\w+)"')
def then_warned(world: World, event: str) -> None:
    [warned] = [each for each in world.server.events if each["event"] == event]
    assert warned["level"] == "warning"


@step(r"another process of the same user can read its environment")
def then_open(world: World) -> None:
    assert f"{world.server.pid} environ" in seen_by_its_user([world.server.pid])


@step(r"a server with (\d+) variables in its environment that are nobody's business")
def given_variables(world: World, count: str) -> None:
    world._config = configured(world, str(good_secret(world)))
    names = ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PYTHONPATH", "LD_PRELOAD_X", "RBEE_SECRET"]
    names += [f"VARIABLE_{number}" for number in range(int(count) - len(names))]
    world.start(through=["env", *(f"{name}={SECRET}" for name in names)])


@step(r"no worker has a variable that docs/secrets\.md does not name")
def then_known_variables(world: World) -> None:
    documented = set(re.findall(r"`([A-Z_]+)`", DOCS.read_text("utf-8")))
    for_tests = {"COVERAGE_PROCESS_CONFIG"}
    assert set(ENVIRONMENT_KEPT) - for_tests <= documented
    for pid in world.server.worker_pids():
        environment = psutil.Process(pid).environ()
        assert set(environment) <= {*ENVIRONMENT_KEPT, MARK_NAME}
        assert SECRET not in environment.values()


@step(r"no worker has a descriptor that was not made for it")
def then_own_descriptors(world: World) -> None:
    """No listener and no file of the supervisor's: of the two it knows the pipes alone."""
    port = int(world.server.url.rpartition(":")[2])
    for pid in world.server.worker_pids():
        worker = psutil.Process(pid)
        assert port not in {each.laddr.port for each in worker.net_connections("tcp")}
        assert [
            each.path for each in worker.open_files() if str(world.directory) in each.path
        ] == []


@step(r"each worker takes no new rights, and makes files for itself alone")
def then_no_new_rights(world: World) -> None:
    for pid in world.server.worker_pids():
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^Umask:\s+0077$", status, re.MULTILINE)


# Files that are read again.


@step(r"a server under TLS")
def given_tls(world: World) -> None:
    pair = make_pair(folder(world) / "tls")
    world._config = configured(world, rest=pair.toml())
    world.start(until_ready=False)
    world.server.wait_event("serving")
    world.lines = [fingerprint(world)]


@step(r"it gets SIGHUP")
def when_sighup(world: World) -> None:
    world.server.signal(signal.SIGHUP)


@step(r"its TLS key is opened to the group, and it gets SIGHUP")
def when_key_opened(world: World) -> None:
    (folder(world) / "tls" / "key.pem").chmod(0o640)
    when_sighup(world)


@step(r"its certificate alone is replaced, and it gets SIGHUP")
def when_half_replaced(world: World) -> None:
    new = make_pair(folder(world) / "new")
    new.certificate.replace(folder(world) / "tls" / "certificate.pem")
    when_sighup(world)


@step(r"its certificate and key are replaced, and it gets SIGHUP")
def when_replaced(world: World) -> None:
    make_pair(folder(world) / "tls")
    when_sighup(world)


NEW_SECRET = "canary-of-the-new-secret"


def replace_secret(world: World, mode: int = 0o600) -> None:
    """As docs/secrets.md says: the old one gets another name."""
    path = folder(world) / "audit-secret"
    path.rename(path.with_name("audit-secret.old"))
    path.touch(mode)
    path.write_text(f"{NEW_SECRET}\n")


@step(r"its audit secret is replaced, and it gets SIGHUP, while (\d+) requests are answered")
def when_secret_replaced(world: World, count: str) -> None:
    def ask(_number: int) -> int:
        return world.server.chat("hello", max_tokens=2).status_code

    with ThreadPoolExecutor(4) as clients:
        statuses = [clients.submit(ask, number) for number in range(int(count))]
        statuses[int(count) // 4].result()
        replace_secret(world)
        when_sighup(world)
        world.lines = [str(each.result()) for each in statuses]
    # However quick they were, some come behind the new secret.
    wait_until(lambda: any("audit.rekeyed" in line for line in audit_lines(world)), 20, "rekeyed")
    world.lines += [str(ask(number)) for number in range(2)]


@step(r"all of them were answered")
def then_answered(world: World) -> None:
    assert set(world.lines) == {"200"}


def verified(world: World, *secrets: str) -> int:
    files = [word for name in secrets for word in ("--secret-file", str(folder(world) / name))]
    state = str(world.directory / "state" / "audit")
    command = [sys.executable, "-m", "rbee", "audit", "verify", *files, state]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode


@step(r"the audit log is good with the new secret and the old one, and with neither alone")
def then_good_with_both(world: World) -> None:
    assert verified(world, "audit-secret", "audit-secret.old") == 0
    assert verified(world, "audit-secret.old", "audit-secret") == 1, "the newest comes first"
    assert verified(world, "audit-secret") == 1
    assert verified(world, "audit-secret.old") == 1


@step(
    r"it tells the begin and the end of all requests, some before the new secret and some after it"
)
def then_all_told(world: World) -> None:
    events = [json.loads(line)["event"] for line in audit_lines(world)]
    place = events.index("audit.rekeyed")
    for name in ("request.start", "request.end"):
        assert events.count(name) == len(world.lines)
        assert name in events[:place]
        assert name in events[place:]


@step(r"its audit secret is replaced by one that others may read, and it gets SIGHUP")
def when_bad_secret(world: World) -> None:
    replace_secret(world, 0o644)
    when_sighup(world)


@step(r"the audit log is good with the old secret")
def then_good_with_old(world: World) -> None:
    assert verified(world, "audit-secret.old") == 0


@step(r'it says "(\w+)", and the audit log has "([a-z.]+)"')
def then_told(world: World, event: str, audited: str) -> None:
    world.server.wait_event(event, 20)
    assert len([line for line in audit_lines(world) if f'"event":"{audited}"' in line]) == 1


@step(r"it serves as before")
def then_serves(world: World) -> None:
    assert world.server.chat("still there?", max_tokens=2).status_code == 200


@step(r"it is reached under its (old|new) certificate")
def then_reached(world: World, which: str) -> None:
    assert (fingerprint(world) == world.lines[0]) == (which == "old")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    ready = httpx2.get(f"{world.server.url}/health/ready", verify=context, timeout=10)
    assert ready.json() == {"status": "ok"}


def fingerprint(world: World) -> str:
    host, port = world.server.url.removeprefix("https://").split(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10)
