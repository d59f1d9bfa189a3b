"""Writes what rbee is made of, as a CycloneDX 1.6 document in JSON: `make sbom`.

Source: the CycloneDX specification 1.6 (ECMA-424). From ``requirements.lock``, which pins every
package with its hashes, and from what is installed, which tells who needs whom and under which
licence. The same lock gives the same document.
"""

import argparse
import hashlib
import json
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
NAME = "rbee"

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *([^\\]+?))? *\\?$")
_HASH = re.compile(r"^ +--hash=sha256:([0-9a-f]{64})")


@dataclass
class Pin:
    """A package of the lock."""

    name: str
    version: str
    hashes: list[str] = field(default_factory=list)  # SHA-256, of each of its files

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Pin]:
    """The packages of a lock. One of a name for each Python stands there more than once.

    Raises:
      ValueError: a line is neither a package nor one of its hashes.
    """
    pins: list[Pin] = []
    for line in text.splitlines():
        if match := _PIN.match(line):
            pins.append(Pin(canonicalize_name(match[1]), match[2]))
        elif (match := _HASH.match(line)) and pins:
            pins[-1].hashes.append(match[1])
        elif line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"not a line of a lock: {line!r}")
    return pins


def needs_of(
    name: str, extras: frozenset[str] = frozenset()
) -> Iterator[tuple[str, frozenset[str]]]:
    """What an installed package needs here, with the extras of each."""
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # of another platform
        return
    for text in texts:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in ("", *extras)):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def all_needs(name: str) -> dict[str, set[str]]:
    """Who needs whom, from ``name`` on: what it takes to run it, and nothing else."""
    needs: dict[str, set[str]] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    seen = set(waiting)
    while waiting:
        current, extras = waiting.pop()
        for needed in needs_of(current, extras):
            needs.setdefault(current, set()).add(needed[0])
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
        needs.setdefault(current, set())
    return needs


def document(lock: str) -> dict[str, Any]:
    """The whole document."""
    pins, needs = read_lock(lock), all_needs(NAME)
    version = metadata.version(NAME)
    own = {"type": "application", "name": NAME, "version": version, "bom-ref": NAME}
    own["licenses"] = [{"expression": "Apache-2.0"}]
    refs: dict[str, list[str]] = {NAME: [NAME]}
    for pin in pins:
        refs.setdefault(pin.name, []).append(pin.purl)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(hashlib.sha256(lock.encode()).hexdigest()[:32])}",
        "version": 1,
        "metadata": {"component": own},
        "components": [_component(pin, is_needed=pin.name in needs) for pin in pins],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(each for one in needed for each in refs.get(one, ()))}
            for name, needed in sorted(needs.items())
            for ref in refs.get(name, ())
        ],
    }


def _component(pin: Pin, *, is_needed: bool) -> dict[str, Any]:
    """``excluded`` are tools of development: they do not come with rbee."""
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "scope": "required" if is_needed else "excluded",
        "purl": pin.purl,
        "hashes": [{"alg": "SHA-256", "content": each} for each in pin.hashes],
    }
    if licence := _licence(pin.name):
        component["licenses"] = [licence]
    return component


def _licence(name: str) -> dict[str, Any] | None:
    """As its authors name it; None: it is not installed, or says nothing short."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if expression := found.get("License-Expression"):
        return {"expression": expression}
    text = found.get("License") or ""
    return {"license": {"name": text}} if text and "\n" not in text and len(text) < 80 else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the CycloneDX document of rbee.")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--out", type=Path, help="a file; else stdout")
    options = parser.parse_args()
    text = json.dumps(document(options.lock.read_text("utf-8")), indent=2) + "\n"
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
