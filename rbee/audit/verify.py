"""Whether an audit log is as it was written, and the first entry that is not. Pure.

Rule 1: what is named is the first entry, in the order of the numbers, that is not as it was or
        not where it was.
Rule 2: without the secret a log proves itself against its anchor only: who can write both can
        rewrite both. With the secret each entry is proved for itself.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rbee.audit.anchor import Anchor
from rbee.audit.chain import GENESIS_HASH, LINE_BYTES_MAX, Head, Line, hash_of, read_line
from rbee.audit.events import Event
from rbee.audit.seals import Seals


class FlawKind(enum.StrEnum):
    """What is wrong. Documented in docs/audit.md."""

    MALFORMED = "malformed"  # no line of an audit log
    TORN = "torn"  # the last line has no end: a crash; the next start sets it right
    ALTERED = "altered"  # its hash is not the hash of what it says
    MISSING = "missing"  # another entry stands in its place, one that comes later
    MISPLACED = "misplaced"  # an earlier number, once more
    UNLINKED = "unlinked"  # it does not continue the entry before it
    BEGIN_MISSING = "begin_missing"  # the oldest entries are gone
    CUT_OFF = "cut_off"  # the newest entries are gone
    REPLACED = "replaced"  # another entry stands where the anchor knows one
    UNSEALED = "unsealed"  # without a seal, behind one that has it; or none has
    BAD_SEAL = "bad_seal"  # sealed with another secret than holds there, or forged
    NO_ANCHOR = "no_anchor"  # nothing tells where the log ends
    DAMAGED = "damaged"  # the log itself tells that it was not as it had been left
    BAD_ANCHOR = "bad_anchor"  # it cannot be read, or its seal is wrong or missing


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first thing that is wrong."""

    kind: FlawKind
    seq: int  # of the entry that should stand there
    file: str  # "" where no file can be named
    line: int  # in that file, from 1; 0: none
    what: str  # expected and found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log proved to be."""

    entries: int
    first_seq: int  # 0: there is none
    last: Head | None
    sealed: int  # entries whose seal was checked
    flaw: Flaw | None
    witnessed_seq: int = 0  # the last entry that the store knows of; 0: none
    witness_problem: str = ""  # why the store could not be asked


class Verifier:
    """Goes through a log, line by line, to the first flaw.

    Args:
      anchors: that of the file, and that of the store, if they are there.
      keys: that may have sealed it, the newest first; none: seals are not looked at.
      pins: entries that are known from elsewhere.
      anchor_problem: why there is no anchor, though there is a file for it.
      accepted: entries that tell of damage, and that somebody has looked into.
    """

    def __init__(
        self,
        anchors: tuple[Anchor | None, Anchor | None],
        keys: Sequence[bytes] = (),
        pins: Iterable[Head] = (),
        anchor_problem: str = "",
        accepted: Iterable[int] = (),
    ) -> None:
        self._anchor, self._witness = anchor, witness = anchors
        self._anchor_problem = anchor_problem
        self._accepted = frozenset(accepted)
        self._damaged: Flaw | None = None
        self._has_keys = bool(keys)
        self._seals = Seals(keys)
        self._pins = {pin.seq: pin.hash for pin in pins}
        self._known = [
            ("the anchor knows", {} if anchor is None else {anchor.seq: anchor.hash}),
            ("the store knows", {} if witness is None else {witness.seq: witness.hash}),
            ("you know", self._pins),
        ]
        self._entries = 0
        self._first_seq = 0
        self._seq = 0
        self._hash = ""
        self._flaw: Flaw | None = None
        self._file, self._line = "", 0

    @property
    def is_flawed(self) -> bool:
        return self._flaw is not None

    def begin_file(self, name: str) -> None:
        self._file, self._line = name, 0

    def take(self, raw: bytes) -> bool:
        """Look at the next line, with its newline. False: here is the first flaw."""
        self._line += 1
        if not raw.endswith(b"\n"):
            if len(raw) > LINE_BYTES_MAX:
                return self._bad(FlawKind.MALFORMED, "a line longer than any that is written")
            return self._bad(FlawKind.TORN, f"{len(raw)} bytes without an end")
        line = read_line(raw[:-1])
        if line is None:
            return self._bad(FlawKind.MALFORMED, "this is no line of an audit log")
        if hash_of(line.body) != line.hash:
            return self._bad(FlawKind.ALTERED, "its hash is not that of what it says")
        if not (self._follows(line) and self._is_known(line) and self._is_sealed(line)):
            return False
        if line.entry.event == Event.AUDIT_DAMAGED:
            self._note_damage(line)
        self._entries += 1
        self._first_seq = self._first_seq or line.entry.seq
        self._seq, self._hash = line.entry.seq, line.hash
        return True

    def finish(self) -> Verdict:
        """All lines were taken, or the first flaw was found."""
        if self._flaw is None:
            self._flaw = self._judge_end()
        last = Head(self._seq, self._hash) if self._entries else None
        witnessed_seq = 0 if self._witness is None else self._witness.seq
        return Verdict(
            self._entries, self._first_seq, last, self._seals.checked, self._flaw, witnessed_seq
        )

    def _follows(self, line: Line) -> bool:
        entry = line.entry
        if not self._entries:
            return self._begins(line)
        expected = self._seq + 1
        if entry.seq > expected:
            return self._bad(FlawKind.MISSING, f"expected entry {expected}, found {entry.seq}")
        if entry.seq < expected:
            return self._bad(FlawKind.MISPLACED, f"expected entry {expected}, found {entry.seq}")
        if entry.prev_hash != self._hash:
            return self._bad(FlawKind.UNLINKED, "it continues another entry than the one before it")
        return True

    def _begins(self, line: Line) -> bool:
        """Whether a log may begin with this entry."""
        first_seq = self._anchor.first_seq if self._anchor else line.entry.seq
        seq = line.entry.seq
        if seq < 1:
            return self._bad(FlawKind.MALFORMED, "entries are numbered from 1")
        if seq > first_seq:
            self._seq = first_seq - 1
            what = f"the log should begin with entry {first_seq}, and begins with {seq}"
            return self._bad(FlawKind.BEGIN_MISSING, what)
        self._seq = seq - 1
        if seq == 1 and line.entry.prev_hash != GENESIS_HASH:
            return self._bad(FlawKind.UNLINKED, "the first entry must follow 64 zeros")
        return True

    def _is_known(self, line: Line) -> bool:
        """Whether it is the one that the anchor, or somebody else, knows under its number."""
        for who_knows, known in self._known:
            expected = known.get(line.entry.seq, line.hash)
            if expected != line.hash:
                what = f"{who_knows} another: it, or one before it, was rewritten"
                return self._bad(FlawKind.REPLACED, what)
        return True

    def _is_sealed(self, line: Line) -> bool:
        problem = self._seals.problem(line)
        kind = FlawKind.UNSEALED if line.seal is None else FlawKind.BAD_SEAL
        return not problem or self._bad(kind, problem)

    def _note_damage(self, line: Line) -> None:
        if self._damaged is None and line.entry.seq not in self._accepted:
            what = f"the log tells of damage: {bytes(line.entry.details).decode()}"
            self._damaged = Flaw(FlawKind.DAMAGED, line.entry.seq, self._file, self._line, what)

    def _judge_end(self) -> Flaw | None:
        self._line = 0
        anchor = self._anchor
        if self._has_keys and self._entries and not self._seals.checked:
            self._bad(FlawKind.UNSEALED, "no entry has a seal")
        elif self._anchor_problem:
            self._bad(FlawKind.BAD_ANCHOR, self._anchor_problem)
        elif anchor is None:
            self._bad(FlawKind.NO_ANCHOR, "without an anchor nobody knows where the log ends")
        elif self._seq < anchor.seq:
            what = f"the log ends with entry {self._seq}, and had {anchor.seq}"
            self._bad(FlawKind.CUT_OFF, what)
        elif problem := self._seals.problem_at_end():
            self._bad(FlawKind.BAD_SEAL, problem)
        elif anchor.seq and not self._seals.is_seal_of(anchor):
            self._bad(FlawKind.BAD_ANCHOR, "the anchor's seal is not of this secret")
        elif self._witness is not None and self._seq < self._witness.seq:
            what = f"the log ends with entry {self._seq}, and the store knows {self._witness.seq}"
            self._bad(FlawKind.CUT_OFF, what)
        elif late := [seq for seq in self._pins if seq > self._seq]:
            self._bad(FlawKind.CUT_OFF, f"the log ends with entry {self._seq}, and had {max(late)}")
        return self._flaw or self._damaged

    def _bad(self, kind: FlawKind, what: str) -> bool:
        self._flaw = Flaw(kind, self._seq + 1, self._file, self._line, what)
        return False


READ_LINE_BYTES: Final = LINE_BYTES_MAX + 1
