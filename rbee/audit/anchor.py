"""The anchor: where the chain ended when it was last made safe, in a file apart from the log.

Who cuts off the end of the log, or puts back older files, leaves a log that is right in itself.
Only the anchor tells. docs/audit.md says what it cannot tell.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from rbee.audit.chain import GENESIS, Head, hash_of, seal_of
from rbee.audit.disk import Disk, sync_folder

ANCHOR_BYTES_MAX: Final = 4096


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The head of the chain, and the first entry that is kept."""

    seq: int
    hash: str
    first_seq: int
    seal: str | None = None  # over the others, where the log is sealed

    @property
    def head(self) -> Head:
        return Head(self.seq, self.hash)

    def is_sealed_by(self, key: bytes) -> bool:
        return self.seal == _seal(self, key)


GENESIS_ANCHOR: Final = Anchor(GENESIS.seq, GENESIS.hash, first_seq=1)


class AnchorError(Exception):
    """There is an anchor, but it cannot be read."""


def sealed(anchor: Anchor, key: bytes | None) -> Anchor:
    seal = None if key is None else _seal(anchor, key)
    return msgspec.structs.replace(anchor, seal=seal)


def _seal(anchor: Anchor, key: bytes) -> str:
    return seal_of(hash_of(f"{anchor.seq} {anchor.hash} {anchor.first_seq}".encode()), key)


def write_anchor(disk: Disk, path: Path, anchor: Anchor) -> None:
    """Replace the file: whole, or not at all.

    Raises:
      OSError: it could not be written.
    """
    draft = path.with_name(path.name + ".part")
    disk.unlink(draft)
    descriptor = disk.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        data = msgspec.json.encode(anchor) + b"\n"
        if disk.write(descriptor, data) != len(data):
            raise OSError(28, os.strerror(28))
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
    disk.rename(draft, path)
    sync_folder(disk, path.parent)


def read_anchor(path: Path) -> Anchor | None:
    """The anchor; None: there is none.

    Raises:
      AnchorError: it is not one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnchorError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        raw = os.read(descriptor, ANCHOR_BYTES_MAX)
        return msgspec.json.decode(raw, type=Anchor)
    except OSError as error:
        raise AnchorError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AnchorError(f"{path} holds no anchor") from error
    finally:
        os.close(descriptor)
