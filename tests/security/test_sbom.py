"""What rbee is made of, as `make sbom` writes it."""

import json
import re
from pathlib import Path

import pytest

from tools import sbom

LOCK = (Path(__file__).parents[2] / "requirements.lock").read_text("utf-8")


def test_every_package_of_the_lock_stands_in_it_with_its_hashes() -> None:
    found = sbom.document(LOCK)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    pinned = set(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", LOCK, re.MULTILINE))
    components = {(each["name"], each["version"]): each for each in found["components"]}
    assert set(components) == pinned
    assert all(each["hashes"] for each in components.values())
    assert sum(len(each["hashes"]) for each in components.values()) == LOCK.count("sha256:")


def test_what_runs_is_told_from_what_only_builds() -> None:
    scope = {each["name"]: each["scope"] for each in sbom.document(LOCK)["components"]}
    for name in ("trio", "hypercorn", "h11", "msgspec", "pyzmq", "argon2-cffi"):
        assert scope[name] == "required", name
    for name in ("pytest", "ruff", "mypy"):
        assert scope[name] == "excluded", name


def test_who_needs_whom_names_only_what_is_there() -> None:
    found = sbom.document(LOCK)
    known = {each["bom-ref"] for each in found["components"]} | {"rbee"}
    needs = {each["ref"]: set(each["dependsOn"]) for each in found["dependencies"]}
    assert set(needs) <= known
    assert set().union(*needs.values()) <= known
    trio = next(each for each in needs["rbee"] if each.startswith("pkg:pypi/trio@"))
    assert any(each.startswith("pkg:pypi/outcome@") for each in needs[trio])


def test_the_same_lock_gives_the_same_document() -> None:
    assert json.dumps(sbom.document(LOCK)) == json.dumps(sbom.document(LOCK))


def test_a_lock_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a line of a lock"):
        sbom.read_lock("trio>=0.31\n")
