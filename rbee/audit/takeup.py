"""How a log is taken up again: a pure decision, from its end, its anchor and what was known of it.

Rule 1: what a crash leaves, half a line at the end, is set right and told.
Rule 2: what nobody but a person can have done, or a broken disk, is told and left as it is, for
        `rbee audit verify` to show. The chain goes on in a file of its own.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from rbee.audit.chain import GENESIS, TEXT_MAX, Head
from rbee.audit.events import AuditDamaged, AuditRepaired
from rbee.audit.files import Tail

_UNKNOWN: Final = "there is no anchor, though there is a log"


@dataclass(frozen=True, slots=True)
class TakeUp:
    """What is to be done before the next entry."""

    head: Head  # behind which it goes
    is_same_file: bool  # else in a new one
    repaired: AuditRepaired | None = None  # written in place of the torn line
    damaged: AuditDamaged | None = None  # written first in the new file


def take_up(tail: Tail, known: Head | None) -> TakeUp:
    """Decide how to go on.

    Args:
      known: the last entry that there must be; None: nothing is known of the log.
    """
    expected = known or GENESIS
    found = tail.last or max(
        (Head(*each) for each in tail.heads.items()), key=lambda head: head.seq, default=GENESIS
    )
    if problem := _problem(tail, known):
        damaged = AuditDamaged(reason=problem, found_seq=found.seq, expected_seq=expected.seq)
        is_other = tail.last is not None and found.seq >= expected.seq and known is not None
        head = expected if is_other else max(found, expected, key=lambda head: head.seq)
        return TakeUp(head, False, damaged=damaged)
    return TakeUp(found, tail.file is not None, repaired=_repaired(tail))


def _problem(tail: Tail, known: Head | None) -> str:
    if tail.problem:
        return tail.problem
    if known is None:
        return _UNKNOWN if tail.last else ""
    last_seq = tail.last.seq if tail.last else 0
    if last_seq < known.seq:
        return f"the log ends with entry {last_seq}, and had {known.seq}"
    if tail.heads.get(known.seq, known.hash) != known.hash:
        return f"entry {known.seq} is not the one that was written"
    return ""


def _repaired(tail: Tail) -> AuditRepaired | None:
    if not tail.torn:
        return None
    assert tail.file is not None
    return AuditRepaired(
        file=tail.file.name,
        torn_bytes=len(tail.torn),
        torn_sha256=hashlib.sha256(tail.torn).hexdigest(),
        torn_text=tail.torn[:TEXT_MAX].decode("utf-8", "replace"),
    )
