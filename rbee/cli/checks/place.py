"""The configuration, and the places it names: run directory, port and models."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.cli.checks.finding import Finding
from rbee.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from rbee.cli.address import Address
    from rbee.config import Config, ServerConfig


def check_run_dir(configured: str) -> Finding:
    """What `rbee serve` would find; makes and changes nothing."""
    path = run_dir_path(configured)
    problem = _problem_of_run_dir(path)
    if problem:
        return Finding("run dir", "fail", *problem)
    if not path.exists():
        return Finding("run dir", "ok", f"{path}, made when rbee starts")
    return judge_lock(path)


def run_dir_path(configured: str) -> Path:
    from rbee.run_place import default_run_dir

    return Path(configured).absolute() if configured else default_run_dir()


def _problem_of_run_dir(path: Path) -> tuple[str, str] | None:
    """What is wrong with the run directory, and how to mend it."""
    from rbee.supervisor.run_dir import SOCKET_NAME_BYTES_MAX
    from rbee.transport.link import SOCKET_PATH_BYTES_MAX

    longest = SOCKET_PATH_BYTES_MAX - SOCKET_NAME_BYTES_MAX - 1
    if len(bytes(path)) > longest:
        return f"{path} is longer than {longest} bytes", "set a shorter server.run_dir"
    try:
        found = path.lstat()
    except FileNotFoundError:
        return _problem_of_parent(path)
    except OSError as error:
        return f"{path}: {error.strerror}", "set server.run_dir to a folder of your own"
    return judge_run_dir(path, found.st_mode, found.st_uid, os.geteuid())


def _problem_of_parent(path: Path) -> tuple[str, str] | None:
    parent = next(each for each in path.parents if each.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        return None
    return f"{path} cannot be made: {parent} is not ours to write", "set server.run_dir"


def judge_run_dir(path: Path, mode: int, owner: int, user: int) -> tuple[str, str] | None:
    """What is wrong with a run directory that is there, and how to mend it."""
    if not stat.S_ISDIR(mode):
        return f"{path} is not a directory", f"rm {path}, or set another server.run_dir"
    if owner != user:
        return f"{path} belongs to uid {owner}", "set another server.run_dir"
    if stat.S_IMODE(mode) & 0o077:
        return f"{path} is open to others ({stat.S_IMODE(mode):04o})", f"chmod 700 {path}"
    return None


def judge_lock(path: Path) -> Finding:
    """Whether a supervisor holds the directory, or one that is gone left things behind."""
    from rbee.supervisor.run_dir import LOCK_NAME

    try:
        descriptor = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return Finding("run dir", "ok", f"{path}, free")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        return Finding(
            "run dir",
            "warn",
            f"{path} is held by a running rbee, pid {holder}",
            "stop that one first, or give a second one a --run-dir of its own",
        )
    finally:
        os.close(descriptor)
    left = sum(stat.S_ISSOCK(entry.lstat().st_mode) for entry in path.iterdir())
    return Finding("run dir", "ok", f"{path}, free; {left} left sockets go at the next start")


def check_local(server: "ServerConfig") -> Finding:
    """Where programs of this machine reach the server without HTTP, and whether one is there."""
    from rbee.local_wire import SOCKET_NAME

    if not server.local:
        return Finding("local face", "ok", "off, by server.local = false")
    path = run_dir_path(server.run_dir) / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(bytes(path))
        except BlockingIOError:  # a server is there, and too busy to accept
            pass
        except OSError:
            return Finding("local face", "ok", f"{path}, made when rbee starts")
    return Finding("local face", "ok", f"a server listens at {path}")


def check_port(config: "Config") -> Finding:
    """Whether the address can be listened on, by trying."""
    from rbee.cli.address import address_of
    from rbee.cli.key_store import check_address

    bind = config.server.bind
    try:
        listens = check_address(config)
    except (ConfigError, StoreError) as error:
        return Finding("port", "fail", str(error), "set server.bind, or rbee serve --bind")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listens.host, listens.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return judge_bind_error(bind, listens.port, address_of(config), error)
    return Finding("port", "ok", f"{bind} is free")


def judge_bind_error(bind: str, port: int, address: "Address", error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE and _is_rbee(address):
        mend = "stop that one first, or give a second one another --bind"
        return Finding("port", "warn", f"an rbee server runs at {bind}", mend)
    mends = {
        errno.EADDRINUSE: f"find who has it: ss -ltnp 'sport = :{port}'; or take another --bind",
        errno.EACCES: "ports below 1024 are root's: take a higher one",
        errno.EADDRNOTAVAIL: "this machine has no such address (ip address): take another --bind",
    }
    mend = mends.get(error.errno or 0, "take another --bind")
    return Finding("port", "fail", f"{bind}: {error.strerror}", mend)


def _is_rbee(address: "Address") -> bool:
    """Whether what listens there answers as rbee does."""
    from rbee.cli.endings import UnreachableError
    from rbee.cli.server import Server

    try:
        with Server(address) as server:
            server.readiness()
    except UnreachableError:
        return False
    return True


def check_models(config: "Config") -> Finding:
    """Whether the models of the configuration can be served here: files, engine, GPU."""
    from rbee.supervisor.catalogue import plan_workers
    from rbee.supervisor.devices import survey_within

    try:
        plans = plan_workers(config.model, config.worker, survey_within(), os.cpu_count() or 1)
    except ConfigError as error:
        return Finding("models", "fail", str(error), "set the model's ref in rbee.toml, or --model")
    except OSError as error:
        told = f"{error.filename}: {error.strerror}"
        return Finding("models", "fail", told, "let us read the file, or install rbee again")
    found = [f"{plan.worker_id}: {plan.welcome.model.engine}" for plan in plans]
    return Finding("models", "ok", ", ".join(found) or "none configured")
