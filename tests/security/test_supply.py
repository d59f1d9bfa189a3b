"""What rbee is made of: no call that runs what it reads, no package with a known hole, no hook."""

import ast
import functools
import re
import site
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "rbee").rglob("*.py"))

# Modules that turn bytes into objects of any kind, or code.
BANNED_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "multiprocessing", "yaml", "code", "codeop", "pty", "telnetlib", "xmlrpc", "imp",
    # archives: nothing is unpacked, so nothing can be unpacked elsewhere
    "zipfile", "tarfile", "shutil.unpack_archive",
}  # fmt: skip

# Names that do so wherever they come from; and those that hand a line to a shell.
BANNED_CALLS = {
    "eval", "exec", "__import__", "recv_pyobj", "send_pyobj", "unpack_archive",
    "system", "popen", "getoutput", "getstatusoutput",
}  # fmt: skip
BANNED_OF = {("torch", "load"), ("numpy", "load"), ("np", "load"), ("yaml", "load")}

# Whoever imports one of these may call other machines.
FETCHERS = {
    "httpx2", "httpx", "requests", "aiohttp", "urllib.request", "urllib3", "http.client", "ftplib",
    "smtplib", "huggingface_hub", "httpcore",
}  # fmt: skip

# The first version without a hole that is known, and one name of it. What others need comes too.
FLOORS = {
    "click": "8.3.3",  # CVE-2026-7246
    "cryptography": "50.0.0",  # CVE-2026-69247; the OpenSSL in it: GHSA-537c-gmf6-5ccf
    "h11": "0.16.0",  # CVE-2025-43859
    "h2": "4.4.1",  # CVE-2026-71554
    "hpack": "4.2.0",  # GHSA-8v8h-hg4w-mvq2
    "httptools": "0.6.4",  # the llhttp in it: CVE-2024-27982
    "hypercorn": "0.18.0",  # one connection's state seen by another
    "idna": "3.15",  # CVE-2026-45409
    "jinja2": "3.1.6",  # CVE-2025-27516
    "markdown-it-py": "2.2.0",  # CVE-2023-26302
    "pygments": "2.20.0",  # CVE-2026-4539
    "pyjwt": "2.15.1",  # CVE-2026-102266
    "pytest": "9.0.3",  # CVE-2025-71176
    "pyzmq": "26.0.0",  # the libzmq in it: CVE-2021-20235
    "redis": "4.5.4",  # CVE-2023-28859
    "requests": "2.33.0",  # CVE-2026-25645
    "starlette": "1.3.1",  # CVE-2026-54283
    "urllib3": "2.8.0",  # CVE-2026-97688
    "uv": "0.9.6",  # CVE-2025-62518
    "werkzeug": "3.1.6",  # CVE-2026-27199
}
ABSENT = ("python-multipart", "multipart", "litellm", "gunicorn", "ray")

# What runs at each start of Python. Ours is the first, where the package is installed to be worked
# on; the others are of coverage and of setuptools.
HOOKS = {"_editable_impl_rbee.pth", "__editable__.rbee", "a1_coverage.pth"} | {
    "distutils-precedence.pth"
}


@functools.cache
def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text("utf-8"))) for path in SOURCES]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def called(node: ast.AST) -> tuple[str, str]:
    """Of whom, and what: ("", "eval"), ("torch", "load")."""
    if not isinstance(node, ast.Call):
        return "", ""
    match node.func:
        case ast.Name(id=name):
            return "", name
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return owner, name
        case ast.Attribute(attr=name):
            return "?", name
    return "", ""


def banned(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for name in imported(node):
            if name in BANNED_MODULES or name.split(".")[0] in BANNED_MODULES:
                yield node.lineno, name  # type: ignore[attr-defined]
        owner, name = called(node)
        if name in BANNED_CALLS or (owner, name) in BANNED_OF:
            yield node.lineno, f"{owner}.{name}"  # type: ignore[attr-defined]
        if isinstance(node, ast.keyword) and node.arg == "shell":
            yield node.value.lineno, "shell="


def test_nothing_runs_what_it_reads() -> None:
    assert len(SOURCES) > 100
    found = [f"{path}:{line} {what}" for path, tree in trees() for line, what in banned(tree)]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from multiprocessing.connection import Client", "import yaml",
        "socket.recv_pyobj()", "self.socket.send_pyobj(1)", "torch.load(path)", "eval(text)",
        "import shelve as s", "os.system('x')", "subprocess.run('x', shell=True)",
        "from shutil import unpack_archive", "import marshal", "import dill",
    ],
)  # fmt: skip
def test_the_search_finds_them(source: str) -> None:
    assert list(banned(ast.parse(source)))


def test_supervisor_and_workers_fetch_nothing() -> None:
    # The command line calls its own server; keys of token issuers are fetched where configured.
    callers = {
        str(path.relative_to(ROOT))
        for path, tree in trees()
        for node in ast.walk(tree)
        for name in imported(node)
        if name.split(".")[0] in FETCHERS or name in FETCHERS
    }
    allowed = ("rbee/cli/", "rbee/chaos/", "rbee/supervisor/access/jwt/")
    assert [caller for caller in sorted(callers) if not caller.startswith(allowed)] == []
    assert "rbee/cli/server.py" in callers


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE))


def test_every_package_is_pinned_by_its_hash() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:60]
    assert "--index-url" not in text
    assert "--require-hashes" in (ROOT / "Makefile").read_text("utf-8")


def test_packages_are_not_older_than_the_mending_of_their_holes() -> None:
    packages = locked()
    for name, floor in FLOORS.items():
        assert Version(packages[name]) >= Version(floor), name
        assert Version(metadata.version(name)) >= Version(floor), name
    assert not [name for name in ABSENT if name in packages]
    import zmq  # noqa: PLC0415

    assert zmq.zmq_version_info() >= (4, 3, 3)


def test_no_older_package_fits_the_ranges_either() -> None:
    """Who installs rbee without the lock gets none with a known hole of what it asks for itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(text) for text in [*project["dependencies"], *extras["redis"]]]
    lowest = {
        each.name: Version(limit.version)
        for each in asked
        for limit in each.specifier
        if limit.operator in (">=", "==")
    }
    assert lowest.keys() == {each.name for each in asked}
    old = [name for name in lowest.keys() & FLOORS if lowest[name] < Version(FLOORS[name])]
    assert old == []


def test_each_excuse_from_the_static_look_says_why() -> None:
    """Ruff's rules S, which are bandit's, hold for all of rbee: the lines that they spare."""
    spared = [
        (f"{path.relative_to(ROOT)}:{number}", found[1])
        for path in SOURCES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (found := re.search(r"# noqa: S\d+(.*)", line))
    ]
    assert spared
    assert [place for place, why in spared if len(re.findall(r"[a-z]+", why)) < 2] == []


def test_no_package_has_a_hook_into_each_start_of_python() -> None:
    folders = [Path(folder) for folder in site.getsitepackages()]
    found = [path for folder in folders for path in folder.glob("*.pth")]
    unknown = [path.name for path in found if not path.name.startswith(tuple(HOOKS))]
    assert unknown == []
    assert sys.flags.no_user_site or sys.prefix != sys.base_prefix, "tests run in an environment"
