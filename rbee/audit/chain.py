"""The chain: how an entry becomes a line, and a line an entry. docs/audit.md says the same.

Rule 1: the body of a line is the entry as JSON, without spaces, fields in the order of `Entry`.
Rule 2: ``hash`` is the SHA-256 of the body's bytes. The body holds the hash of the entry before
        it, so each hash stands for all that was ever recorded up to there.
Rule 3: ``seal`` is the HMAC-SHA256 of the hash, under a key derived from the operator's secret.
        Whoever can write the files can make hashes that fit, but no seals.
"""

import functools
import hashlib
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from rbee.audit.events import Details, Outcome

GENESIS_HASH: Final = "0" * 64
LINE_BYTES_MAX: Final = 16 * 1024
DETAILS_BYTES_MAX: Final = 4096
TEXT_MAX: Final = 256  # characters of a text that is clipped
TEXTS_MAX: Final = 8  # of a list that is clipped
ACTOR_MAX: Final = 128

# Purpose of the key that seals, for `derive_key`.
SEAL_PURPOSE: Final = "rbee audit seal v1"

# What names a key, and tells nothing of it.
_KEY_ID_LABEL: Final = b"rbee audit key id v1"
_KEY_ID_DIGITS: Final = 16

_HASH: Final = b',"hash":"'
_SEAL: Final = b',"seal":"'
_DIGITS: Final = 64
_END: Final = b'"}'
_HEX: Final = frozenset(b"0123456789abcdef")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is hashed of an entry: all but ``hash`` and ``seal``."""

    seq: int
    time: str
    event: str
    actor: str
    correlation_id: str | None
    outcome: str
    details: msgspec.Raw
    prev_hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends."""

    seq: int
    hash: str


GENESIS: Final = Head(0, GENESIS_HASH)


@dataclass(frozen=True, slots=True)
class Note:
    """An event that happened, before it has a place in the chain."""

    details: Details
    actor: str
    outcome: Outcome
    correlation_id: str | None
    time_ns: int  # Unix time


@dataclass(frozen=True, slots=True)
class Line:
    """A line, taken apart. Whether its hash is right is another question."""

    body: bytes
    hash: str
    seal: str | None
    entry: Entry


_encode_body = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(Entry).decode


def write_lines(head: Head, notes: Iterable[Note], key: bytes | None) -> tuple[list[bytes], Head]:
    """The lines for the next entries, each with its newline, and where the chain ends then."""
    lines = []
    for note in notes:
        entry = Entry(
            seq=head.seq + 1,
            time=rfc_3339(note.time_ns),
            event=note.details.event.value,
            actor=_clean(note.actor)[:ACTOR_MAX],
            correlation_id=note.correlation_id,
            outcome=note.outcome.value,
            details=msgspec.Raw(encode_details(note.details)),
            prev_hash=head.hash,
        )
        body = _encode_body(entry)
        head = Head(entry.seq, hash_of(body))
        lines.append(finish_line(body, head.hash, key))
    return lines, head


def finish_line(body: bytes, body_hash: str, key: bytes | None) -> bytes:
    """The line of a body: its hash and, with a key, its seal."""
    line = body[:-1] + _HASH + body_hash.encode()
    if key is not None:
        line += b'"' + _SEAL + seal_of(body_hash, key).encode()
    return line + _END + b"\n"


def hash_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def seal_of(body_hash: str, key: bytes) -> str:
    return hmac.digest(key, body_hash.encode(), "sha256").hex()


def key_id(key: bytes) -> str:
    """By which entries name a key that seals."""
    return hmac.digest(key, _KEY_ID_LABEL, "sha256").hex()[:_KEY_ID_DIGITS]


def read_line(line: bytes) -> Line | None:
    """Take a line apart, without its newline. None: it is no line of an audit log."""
    rest, seal = _split_off(line, _SEAL, _END)
    rest, body_hash = _split_off(rest, _HASH, _END if seal is None else b'"')
    if body_hash is None:
        return None
    body = rest + b"}"
    try:
        entry = _decode_body(body)
        if not body.isascii():
            body.decode()  # the decoder does not look into what it keeps raw
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not bytes(entry.details).startswith(b"{"):
        return None
    return Line(body, body_hash, seal, entry)


def _split_off(line: bytes, name: bytes, end: bytes) -> tuple[bytes, str | None]:
    """Take a field with 64 hex digits off the end of a line, if that is what stands there."""
    start = len(line) - len(end) - _DIGITS - len(name)
    if start < 1 or not line.endswith(end) or not line.startswith(name, start):
        return line, None
    digits = line[start + len(name) : len(line) - len(end)]
    return (line[:start], digits.decode()) if _HEX.issuperset(digits) else (line, None)


def encode_details(details: Details) -> bytes:
    """As JSON, and never too long: what is over the limit is clipped, and says so."""
    try:
        encoded = _encode_body(details)
    except UnicodeEncodeError:  # half a character, from somebody's file name
        encoded = b""
    if encoded and len(encoded) <= DETAILS_BYTES_MAX:
        return encoded
    tree = {name: _clip(getattr(details, name)) for name in details.__struct_fields__}
    encoded = _encode_body({**tree, "is_clipped": True})
    if len(encoded) <= DETAILS_BYTES_MAX:
        return encoded
    return _encode_body({"is_clipped": True})


def rfc_3339(time_ns: int) -> str:
    """UTC, to the microsecond."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{_whole_second(seconds)}.{rest_ns // 1000:06d}Z"


@functools.lru_cache(maxsize=4)  # the notes of one second share it: a third of what a line costs
def _whole_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _clip(value: object) -> object:
    if isinstance(value, str):
        return _clean(value)[:TEXT_MAX]
    if isinstance(value, tuple):
        return [_clip(each) for each in value[:TEXTS_MAX]]
    return value


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
