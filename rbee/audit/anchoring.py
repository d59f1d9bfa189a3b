"""The anchor of a log that is written: in its file, and once more in the store.

Rule 1: the anchor never promises what is not on the disk: sync first, then `write`, then
        `tell_witness`.
Rule 2: the first entry that there must be moves on by `write` alone, before files are taken away:
        who else takes files away is found out.
"""

from typing import Final

from rbee.audit.anchor import (
    GENESIS_ANCHOR,
    Anchor,
    AnchorError,
    read_anchor,
    sealed,
    write_anchor,
)
from rbee.audit.chain import Head
from rbee.audit.disk import Disk
from rbee.audit.files import first_seq_of, log_files
from rbee.audit.place import Place
from rbee.audit.witness import Witness


class Anchoring:
    """Owned by one thread; `write` and `seal` only under the log's lock."""

    def __init__(self, place: Place, disk: Disk, files_max: int) -> None:
        self._folder: Final = place.folder
        self._path: Final = place.anchor
        self._disk = disk
        self._files_max = files_max
        self._witness = Witness(place.store)

    def exists(self) -> bool:
        return self._path.exists()

    def read(self) -> Anchor | None:
        try:
            return read_anchor(self._path)
        except AnchorError:
            return None  # as if it were gone: that is told as damage

    def heads(self) -> list[Head]:
        """The last entries that there must be, by the file and by the store."""
        anchors = (self.read(), self._witness.anchor())
        return [anchor.head for anchor in anchors if anchor is not None]

    def write(self, head: Head, key: bytes | None) -> None:
        """Note where the chain ends, and take away the oldest files.

        Raises:
          OSError: the old anchor holds.
        """
        known, files = self.read(), log_files(self._folder)
        if known is None:  # at the very begin, or after damage that was told
            known = GENESIS_ANCHOR if not files else Anchor(0, "", first_seq_of(files[0]))
        first_seq = known.first_seq
        if old := files[: -self._files_max]:
            first_seq = max(first_seq, first_seq_of(files[len(old)]))
        anchor = Anchor(head.seq, head.hash, first_seq)
        write_anchor(self._disk, self._path, sealed(anchor, key))
        for path in old:
            self._disk.unlink(path)

    def seal(self, key: bytes | None) -> None:
        """Have it sealed with another key. It promises what it did.

        Raises:
          OSError: the old seal holds.
        """
        anchor = self.read()
        if anchor is not None:
            write_anchor(self._disk, self._path, sealed(anchor, key))

    def tell_witness(self) -> str:
        """Have the store keep the anchor as well.

        Returns:
          Why it cannot; "": it does, or there is no store or no anchor.
        """
        try:
            anchor = read_anchor(self._path)
        except AnchorError as error:
            return str(error)
        if anchor is not None:
            self._witness.tell(anchor)
        return self._witness.problem

    def close(self) -> None:
        self._witness.close()
