"""What chance makes of requests: bytes changed, and requests put together from odd parts."""

import random
from typing import Final

from tests.lane.corpus import CORPUS

_REQUESTS: Final = [request for request in CORPUS.values() if len(request) < 2000]
_SPICE: Final = [
    b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff",
    b",", b"+", b"-", b"0", b"x", b"\r\n\r\n", b"\r\n ", b"9" * 20,
]  # fmt: skip
_METHODS: Final = [b"GET", b"POST", b"HEAD", b"PUT", b"QUERY", b"get", b"G-T", b"PRI", b"M-SEARCH"]
_TARGETS: Final = [
    b"/",
    b"/a?b=c",
    b"/%41%zz",
    b"/#",
    b"*",
    b"a",
    b"//a",
    b"/a\\b",
    b"/\x80",
    b"/[|]",
]
_VERSIONS: Final = [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"]
_NAMES: Final = [
    b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Host", b"Expect",
    b"Upgrade", b"Accept", b"X-a", b"X_a", b"Content-Length ", b" X", b"", b"X\x01", b"\xe4", b"TE",
]  # fmt: skip
_PLAIN_NAMES: Final = [b"Connection", b"Accept", b"accept", b"X-a", b"X_a", b"!#$%&'*+-.^_`|~"]
_VALUES: Final = [
    b"", b"0", b"3", b"03", b"3 ", b"\t3", b"3,3", b"+3", b"0x3", b"chunked", b"close", b"x, close",
    b"keep-alive", b"upgrade", b"100-continue", b"websocket", b"a\tb", b"\xe4", b"70000", b"rbee",
    b"h2c", b"\x01", b"\x7f", b"\x0b",
]  # fmt: skip


def mutate(chance: random.Random) -> bytes:
    """Change a known request in a few places."""
    request = bytearray(chance.choice(_REQUESTS))
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(request) + 1)
        match chance.randrange(5):
            case 0:
                request[place:place] = chance.choice(_SPICE)
            case 1:
                request[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                del request[place : place + chance.randint(1, 8)]
            case 3:
                request[place:place] = request[: chance.randint(0, 64)]
            case _:
                request += chance.choice(_REQUESTS)
    return bytes(request)


def compose(chance: random.Random) -> bytes:
    """Put requests together of which most are nearly right, and many are right."""
    return b"".join(_compose_one(chance) for _ in range(chance.randint(1, 3)))


def _compose_one(chance: random.Random) -> bytes:
    return _compose_odd(chance) if chance.random() < 0.4 else _compose_plain(chance)


def _compose_plain(chance: random.Random) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (chance.choice(_METHODS[:4]), chance.choice(_TARGETS[:3]))]
    for _ in range(chance.randint(0, 4)):
        separator = chance.choice([b": ", b":", b":\t "])
        lines.append(chance.choice(_PLAIN_NAMES) + separator + chance.choice(_VALUES[:20]))
    lines.insert(chance.randint(1, len(lines)), b"Host: rbee")
    body = chance.choice([None, b"", b"abc"])
    if body is not None:
        lines.insert(chance.randint(1, len(lines)), b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def _compose_odd(chance: random.Random) -> bytes:
    request_line = (chance.choice(_METHODS), chance.choice(_TARGETS), chance.choice(_VERSIONS))
    lines = [b" ".join(request_line)]
    lines += [b"Host: rbee"] * chance.choice([1, 1, 1, 1, 1, 0, 2])
    for _ in range(chance.randint(0, 4)):
        separator = chance.choice([b": ", b": ", b" : ", b""])
        lines.append(chance.choice(_NAMES) + separator + chance.choice(_VALUES))
    if chance.random() < 0.5:
        lines.append(b"Content-Length: 3")
    end = b"\r\n" if chance.random() < 0.9 else chance.choice([b"\n", b"\r", b"\r\r\n"])
    return end.join(lines) + b"\r\n\r\n" + chance.choice([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n"])
