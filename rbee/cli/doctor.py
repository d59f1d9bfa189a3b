"""``rbee doctor``: what is wrong on this machine, and how to mend it."""

import dataclasses
import functools
import json as json_text
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rbee.cli.endings import NOT_WELL
from rbee.cli.terminal import is_terminal, printable, printable_line, put

if TYPE_CHECKING:
    from rbee.cli.checks.finding import Finding
    from rbee.config import Config

_COLOURS: Final = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}
_PLAIN: Final = "\x1b[0m"
_NAME_WIDTH: Final = 14


def doctor(*, config: Path | None = None, prepare: bool = False, json: bool = False) -> int:
    """Check this machine: what is wrong, and how to mend it.

    Without --prepare it changes nothing.

    Args:
      config: The configuration file; else ./rbee.toml, if it is there.
      prepare: Build the CUDA code of the exllamav2 engine instead; takes minutes, once.
      json: Print JSON, for programs.
    """
    if prepare:
        return _prepare()
    findings = []
    for finding in examine_all(config):
        findings.append(finding)
        if not json:
            put(_line(finding))
    if json:
        put(json_text.dumps({"findings": [dataclasses.asdict(each) for each in findings]}))
    failed = [finding.name for finding in findings if finding.verdict == "fail"]
    if failed and not json:
        put(f"\nfailed: {', '.join(failed)}")
    return NOT_WELL if failed else 0


def examine_all(path: Path | None) -> "Iterator[Finding]":
    """All checks, one after the other. None raises, whatever package is broken or missing."""
    from rbee.cli.checks import gpu, limits, place, secrecy, software, system
    from rbee.cli.checks.finding import examine

    @functools.cache
    def reading() -> "tuple[Finding, Config]":
        return _read_config(path)

    def config() -> "Config":
        return reading()[1]

    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", software.check_python),
        ("packages", software.check_packages),
        ("llamacpp", software.check_llamacpp),
        ("gpu", gpu.check_gpu),
        ("driver", gpu.check_driver),
        ("exllamav2", lambda: software.check_exllamav2(gpu.has_gpu())),
        ("cuda code", lambda: software.check_cuda_code(gpu.has_gpu())),
        ("open files", system.check_files),
        ("core dumps", system.check_core_dumps),
        ("locked memory", system.check_locked_memory),
        ("confinement", system.check_confinement),
        ("config", lambda: reading()[0]),
        ("worker user", lambda: system.check_worker_user(config().worker.user)),
        ("cgroups", lambda: limits.check_cgroups(config())),
        ("models", lambda: place.check_models(config())),
        ("run dir", lambda: place.check_run_dir(config().server.run_dir)),
        ("local face", lambda: place.check_local(config().server)),
        ("port", lambda: place.check_port(config())),
        ("keys", lambda: secrecy.check_keys(config())),
        ("secrets", lambda: secrecy.check_secrets(config())),
        ("certificate", lambda: secrecy.check_certificate(config())),
        ("disk", lambda: system.check_disk(place.run_dir_path(config().server.run_dir))),
        ("clock", system.check_clock),
    ]
    for name, check in checks:
        yield examine(name, check)


def _read_config(path: Path | None) -> "tuple[Finding, Config]":
    """The configuration's finding, and the configuration; the defaults where it is broken."""
    from rbee.cli.address import CONFIG_FILE
    from rbee.cli.checks.finding import Finding
    from rbee.cli.effective_config import configuration
    from rbee.config import Config
    from rbee.errors import ConfigError

    try:
        config = configuration(path)
    except ConfigError as error:
        mend = "mend it, then: rbee config check; the checks below take the defaults"
        return Finding("config", "fail", str(error), mend), Config()
    if path is None and not CONFIG_FILE.exists():
        return Finding("config", "ok", f"no {CONFIG_FILE} here: the defaults hold"), config
    return Finding("config", "ok", f"{path or CONFIG_FILE} is valid"), config


def _prepare() -> int:
    from rbee.engine.exllamav2.prepare import prepare_extension

    prepare_extension(lambda line: put(printable(line)))
    return 0


def _line(finding: "Finding") -> str:
    verdict = f"{finding.verdict:<5}"
    if is_terminal(sys.stdout):
        verdict = f"{_COLOURS[finding.verdict]}{verdict}{_PLAIN}"
    line = f"{verdict} {finding.name:<{_NAME_WIDTH}} {printable_line(finding.found)}"
    return f"{line}\n{'':<6}{'':<{_NAME_WIDTH}} mend: {finding.mend}" if finding.mend else line
