"""What one check found, and how to mend it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. Whatever is not ok says how to mend it."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert (self.verdict == "ok") == (not self.mend), "mend is for what is not ok, and only it"


def examine(name: str, check: Callable[[], Finding]) -> Finding:
    """Run one check. A check that breaks is itself a finding, and the others go on."""
    try:
        return check()
    except ImportError as error:
        return Finding(
            name, "fail", f"cannot be checked: {error}", "mend the packages first; see above"
        )
    except Exception as error:  # noqa: BLE001 (reported, in the place of the check's own finding)
        return Finding(
            name,
            "fail",
            f"the check broke: {type(error).__name__}: {error}",
            "this is a bug in rbee doctor; please report it with this line",
        )
