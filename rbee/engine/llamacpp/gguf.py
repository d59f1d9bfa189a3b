"""A GGUF file's header, checked before the file is given to C code.

Rule 1: every length in the file is held against the file's own size before it is used, in
        Python's unbounded integers: llama.cpp had overflows here (CVE-2025-53630 and after).
Rule 2: the weights are not read.
Source: docs/gguf.md of the ggml project, version 3.
"""

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.engine.own_user import why_unreadable
from rbee.errors import EngineError, ExitCode

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)  # 1 had other lengths, and no current writer makes it
KEYS_MAX: Final = 4096
TENSORS_MAX: Final = 100_000
DIMENSIONS_MAX: Final = 4
NAME_BYTES_MAX: Final = 1024
ARRAY_ITEMS_MAX: Final = 1 << 24
SHARDS_MAX: Final = 999

_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9

# Tensor type: (values per block, bytes per block), as the library's `ggml_blck_size` and
# `ggml_type_size` give them.
_BLOCKS: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Gguf:
    """What the header says."""

    metadata: dict[str, Scalar]  # single values; of arrays of numbers the largest one
    file_bytes: int  # of all shards
    matrix_types: frozenset[int] = frozenset()  # ggml's numbers; of tensors of two and more axes

    def number(self, key: str, default: int) -> int:
        """An integer below the architecture's own prefix, as "llama.block_count"."""
        value = self.metadata.get(f"{self.metadata.get('general.architecture')}.{key}", default)
        return int(value) if isinstance(value, int | float) else default


def read_gguf(path: Path) -> Gguf:
    """Check a model's file, and the other shards if it is the first of several.

    Raises:
      EngineError: not there, not GGUF, or shorter than its header says.
    """
    first = _read_file(path)
    shards = first.metadata.get("split.count", 0)
    if not isinstance(shards, int) or shards <= 1:
        return first
    all_shards = [first, *map(_read_file, _other_shards(path, shards))]
    return Gguf(
        first.metadata,
        sum(shard.file_bytes for shard in all_shards),
        frozenset().union(*(shard.matrix_types for shard in all_shards)),
    )


def _other_shards(path: Path, count: int) -> list[Path]:
    match = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path.name)
    if match is None or int(match[2]) != count or count > SHARDS_MAX:
        raise _broken(path, f"has {count} parts, and must be named NAME-00001-of-{count:05}.gguf")
    return [path.with_name(f"{match[1]}-{i:05}-of-{count:05}.gguf") for i in range(2, count + 1)]


def _read_file(path: Path) -> Gguf:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 24:
                raise _broken(path, f"has {size} bytes; a GGUF header has at least 24")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data, size).read()
    except OSError as error:
        raise _broken(path, f"cannot be read: {why_unreadable(error)}") from error


class _Reader:
    """Walks one header from front to back, and never past the file's end."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self._path, self._data, self._size = path, data, size
        self._at = 0
        self._matrix_types: set[int] = set()

    def read(self) -> Gguf:
        magic = self._take(4)
        if magic != MAGIC:
            raise _broken(self._path, f"is not a GGUF file: it begins with {magic!r}")
        version = self._number("<I")
        if version not in VERSIONS:
            raise _broken(self._path, f"is of GGUF version {version}; 2 and 3 can be read")
        tensors = self._count("tensors", TENSORS_MAX)
        keys = self._count("keys", KEYS_MAX)
        metadata = dict(self._key() for _ in range(keys))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 65536:
            raise _broken(self._path, f"has an alignment of {alignment}")
        ends = [self._tensor() for _ in range(tensors)]
        start = math.ceil(self._at / alignment) * alignment
        if ends and start + max(ends) > self._size:
            raise _broken(
                self._path,
                f"is cut off: its tensors need {start + max(ends)} bytes, it has {self._size}",
            )
        return Gguf(metadata, self._size, frozenset(self._matrix_types))

    def _key(self) -> tuple[str, Scalar]:
        name = self._string(NAME_BYTES_MAX)
        kind = self._number("<I")
        if kind == _STRING:
            return name, self._string(self._size)
        if kind == _ARRAY:
            return name, self._array()
        return name, self._scalar(kind)

    def _array(self) -> Scalar:
        kind = self._number("<I")
        count = self._count("array items", ARRAY_ITEMS_MAX)
        if kind == _STRING:
            for _ in range(count):
                self._skip(self._number("<Q"))
            return ""
        if kind not in _SCALARS:
            raise _broken(self._path, f"has an array of unknown type {kind}")
        code = _SCALARS[kind][1]
        raw = self._take(count * struct.calcsize(_SCALARS[kind]))
        return max(struct.unpack(f"<{count}{code}", raw), default=0)

    def _tensor(self) -> int:
        """Read one tensor's entry.

        Returns:
          Where its data ends, counted from the first tensor's.
        """
        self._string(NAME_BYTES_MAX)
        rank = self._number("<I")
        if rank > DIMENSIONS_MAX:
            raise _broken(self._path, f"has a tensor of {rank} dimensions; at most 4 can be read")
        shape = [self._number("<Q") for _ in range(rank)]
        kind = self._number("<I")
        offset = self._number("<Q")
        if kind not in _BLOCKS:
            raise _broken(self._path, f"has a tensor of unknown type {kind}")
        block_values, block_bytes = _BLOCKS[kind]
        values = math.prod(shape)
        if values == 0 or (shape and shape[0] % block_values):
            raise _broken(self._path, f"has a tensor of shape {shape} and type {kind}")
        if rank > 1:
            self._matrix_types.add(kind)
        return offset + values // block_values * block_bytes

    def _scalar(self, kind: int) -> Scalar:
        if kind not in _SCALARS:
            raise _broken(self._path, f"has a value of unknown type {kind}")
        code = _SCALARS[kind]
        value: Scalar = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def _count(self, what: str, limit: int) -> int:
        count = self._number("<Q")
        if count > limit:
            raise _broken(self._path, f"claims {count} {what}; at most {limit} are read")
        return count

    def _string(self, limit: int) -> str:
        length = self._number("<Q")
        if length > limit:
            raise _broken(self._path, f"claims a string of {length} bytes")
        return self._take(length).decode("utf-8", "replace")

    def _number(self, code: str) -> int:
        number: int = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return number

    def _skip(self, length: int) -> None:
        if length > self._size - self._at:
            raise _broken(
                self._path,
                f"is cut off: {length} bytes should follow byte {self._at},"
                f" the file has {self._size}",
            )
        self._at += length

    def _take(self, length: int) -> bytes:
        start = self._at
        self._skip(length)
        return self._data[start : self._at]


def _broken(path: Path, problem: str) -> EngineError:
    return EngineError(f"model file {path} {problem}", ExitCode.DATA)
