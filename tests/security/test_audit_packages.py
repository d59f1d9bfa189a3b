"""`make audit` takes no silence for a good answer. A stand-in answers as pip-audit does."""

import json
import stat
import sys
from pathlib import Path

import pytest

from tools.audit_packages import audit, main, tell

LOCK = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{0}
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{0}
trio==0.35.0 \\
    --hash=sha256:{0}
""".format("0" * 64)

# It knows the packages that stand in `KNOWN`, with their holes.
STAND_IN = """\
#!{python}
import json, sys
known = json.loads({known!r})
asked = open(sys.argv[sys.argv.index("--requirement") + 1]).read().split()
dependencies = []
for line in asked:
    name, version = line.split("==")
    if line in known:
        holes = [dict(id=each, fix_versions=["9.9"]) for each in known[line]]
        dependencies.append(dict(name=name, version=version, vulns=holes))
    else:
        dependencies.append(dict(name=name, skip_reason="not found"))
print(json.dumps(dict(dependencies=dependencies)))
"""


def stand_in(folder: Path, known: dict[str, list[str]]) -> Path:
    text = STAND_IN.format(python=sys.executable, known=json.dumps(known))
    return command(folder, text)


def command(folder: Path, text: str) -> Path:
    path = folder / "pip-audit"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_all_is_well_where_every_package_was_asked_for_and_has_no_hole(tmp_path: Path) -> None:
    known: dict[str, list[str]] = {"numpy==2.4.6": [], "numpy==2.5.5": [], "trio==0.35.0": []}
    answers = audit(stand_in(tmp_path, known), "pypi", LOCK)
    assert answers.holes == known
    assert answers.exit_code == 0
    assert tell(answers) == "3 packages asked for, 3 without known holes."


def test_a_hole_is_named_with_the_version_that_mends_it(tmp_path: Path) -> None:
    known = {"numpy==2.4.6": ["CVE-1"], "numpy==2.5.5": [], "trio==0.35.0": []}
    answers = audit(stand_in(tmp_path, known), "pypi", LOCK)
    assert answers.exit_code == 1
    assert tell(answers).splitlines()[-1] == "HOLE: numpy==2.4.6: CVE-1, mended in 9.9"


def test_what_the_service_does_not_know_is_no_good_answer(tmp_path: Path) -> None:
    answers = audit(stand_in(tmp_path, {"trio==0.35.0": []}), "pypi", LOCK)
    assert answers.exit_code == 2
    told = tell(answers)
    assert "1 packages asked for, 1 without" in told
    assert "NOT ASKED: 2 packages" in told
    assert "numpy==2.5.5: not found" in told


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'no such host' >&2; exit 1", "exit code 1: no such host"),
        ("exit 0", "exit code 0: it said nothing"),
        ("echo '{\"dependencies\": []}'", "the report does not name it"),
        (
            'echo \'{"dependencies": [{"name": "trio", "version": "1", "vulns": []}]}\'',
            "the report is of 1",
        ),
    ],
)
def test_a_service_that_cannot_be_asked_is_told_and_no_success(
    script: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("".join(LOCK.splitlines(keepends=True)[-2:]))
    path = command(tmp_path, f"#!/bin/sh\n{script}\n")
    assert main(["--pip-audit", str(path), "--lock", str(lock)]) == 2
    assert why in capsys.readouterr().out


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    answers = audit(tmp_path / "absent", "pypi", LOCK)
    assert answers.exit_code == 2
    assert "No such file" in tell(answers)
