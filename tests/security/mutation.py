"""What chance makes of good inputs: bytes changed, pieces doubled, cut, moved and nested."""

import random
from collections.abc import Sequence
from typing import Final

INPUT_BYTES_MAX: Final = 64 * 1024

# What formats stumble over: ends of lines and strings, lengths at their limits, halves of
# characters, numbers that are none.
_ODD: Final = (
    b"\0", b"\n", b"\r\n", b"\r", b"\x1b[2J", b"\x7f", b"\x85", b"\xff", b"\xed\xa0\x80",
    b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\xf0\x9f\x90\x9d", b"\\ud800", b'"', b"'",
    b"{", b"}", b"[", b"]", b"(", b")", b",", b":", b"=", b"\\", b"/../", b"%00", b"-", b"-1",
    b"0", b"1e400", b"9" * 400, b"NaN", b"Infinity", b"null", b"true", b"{}", b"[]", b" ",
    b"\xff\xff\xff\xff", b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x80" + b"\0" * 7, b"\x01" + b"\0" * 7,
)  # fmt: skip


def mutate(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Change one of the seeds in some places.

    Args:
      words: what the format knows: put in where it does not belong.
    """
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(9):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                data[place:place] = chance.choice(_ODD)
            case 2 if words:
                data[place:place] = chance.choice(words)
            case 3:
                del data[place : place + chance.choice((1, 1, 2, 8, 64))]
            case 4:
                end = place + chance.choice((1, 4, 32))
                data[place:place] = data[place:end]
            case 5:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                data[place:] = other[start:]
            case 6:
                word = chance.choice((*words, *_ODD))
                data[place:place] = word * chance.choice((2, 10, 100, 1000))
            case 7:
                del data[place:]
            case _:
                end = place + chance.choice((1, 2, 4, 8))
                data[place:end] = chance.choice(_ODD)[: end - place]
    return bytes(data[:INPUT_BYTES_MAX])
