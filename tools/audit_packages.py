"""Asks what known holes the packages of the lock have: `make audit`.

pip-audit does the asking. Alone it ends well also where its service knew none of the packages, or
was asked for a part of them only; here every package of ``requirements.lock`` has an answer, those
of other platforms and Pythons too, or the end says that it has none.

Exit codes: 0 all were asked and have no known hole, 1 one has, 2 not all could be asked.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tools.sbom import Pin, read_lock

ROOT: Final = Path(__file__).parent.parent
ROUND_S_MAX: Final = 600
NAMED_MAX: Final = 5  # of the packages without an answer


class NotAskedError(Exception):
    """pip-audit gave no report."""


@dataclass
class Answers:
    """What came back, by package as ``name==version``."""

    holes: dict[str, list[str]] = field(default_factory=dict)  # empty: asked, and none is known
    unasked: dict[str, str] = field(default_factory=dict)  # and why

    @property
    def exit_code(self) -> int:
        if any(self.holes.values()):
            return 1
        return 2 if self.unasked else 0


def rounds_of(pins: Iterable[Pin]) -> list[dict[str, Pin]]:
    """The pins, so parted that no name is twice in one part: pip-audit takes no such file."""
    rounds: list[dict[str, Pin]] = []
    for pin in pins:
        for each in rounds:
            if pin.name not in each:
                each[pin.name] = pin
                break
        else:
            rounds.append({pin.name: pin})
    return rounds


def _named(pin: Pin) -> str:
    return f"{pin.name}=={pin.version}"


def judge(pins: Iterable[Pin], report: dict[str, Any], answers: Answers) -> None:
    """Enter what a report of pip-audit says of each of the pins."""
    told = {each["name"]: each for each in report["dependencies"]}
    for pin in pins:
        name = _named(pin)
        entry = told.get(pin.name, {"skip_reason": "the report does not name it"})
        if "vulns" not in entry:
            answers.unasked[name] = entry.get("skip_reason", "the report says nothing of it")
        elif entry.get("version") != pin.version:
            answers.unasked[name] = f"the report is of {entry.get('version')}"
        else:
            answers.holes[name] = [
                f"{hole['id']}, mended in {' or '.join(hole['fix_versions']) or 'no version'}"
                for hole in entry["vulns"]
            ]


def ask(pip_audit: Path, service: str, pins: Iterable[Pin]) -> dict[str, Any]:
    """One run of pip-audit.

    Raises:
      NotAskedError: it ended without a report, or not in time.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.writelines(f"{_named(pin)}\n" for pin in pins)
        listed.flush()
        command = [str(pip_audit), "--disable-pip", "--no-deps", "--format", "json", "--desc"]
        command += ["off", "--progress-spinner", "off", "--vulnerability-service", service]
        try:
            done = subprocess.run(
                [*command, "--requirement", listed.name],
                capture_output=True, text=True, check=False, timeout=ROUND_S_MAX,
            )  # fmt: skip
            report: dict[str, Any] = json.loads(done.stdout)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotAskedError(str(error)) from error
        except ValueError:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise NotAskedError(f"exit code {done.returncode}: {last[0]}") from None
    return report


def audit(pip_audit: Path, service: str, lock: str) -> Answers:
    """Ask for every package of the lock."""
    answers = Answers()
    for pins in rounds_of(read_lock(lock)):
        try:
            judge(pins.values(), ask(pip_audit, service, pins.values()), answers)
        except NotAskedError as error:
            answers.unasked |= {
                f"{each.name}=={each.version}": str(error) for each in pins.values()
            }
    return answers


def tell(answers: Answers) -> str:
    """The answers in lines, the worst last."""
    asked, unasked = len(answers.holes), answers.unasked
    with_holes = {name: holes for name, holes in answers.holes.items() if holes}
    lines = [f"{asked} packages asked for, {asked - len(with_holes)} without known holes."]
    if unasked:
        lines.append(f"NOT ASKED: {len(unasked)} packages, of which nothing is known by this run:")
        lines += [f"  {name}: {why}" for name, why in [*unasked.items()][:NAMED_MAX]]
        lines += [f"  and {len(unasked) - NAMED_MAX} more"] * (len(unasked) > NAMED_MAX)
    lines += [f"HOLE: {name}: {hole}" for name, holes in with_holes.items() for hole in holes]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.audit_packages")
    parser.add_argument("--pip-audit", type=Path, required=True, help="the command")
    parser.add_argument("--service", default="pypi", help="whom it asks: pypi, osv")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    options = parser.parse_args(arguments)
    answers = audit(options.pip_audit, options.service, options.lock.read_text("utf-8"))
    print(tell(answers))
    return answers.exit_code


if __name__ == "__main__":
    sys.exit(main())
