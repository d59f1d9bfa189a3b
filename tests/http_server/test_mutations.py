"""Mutated requests: whatever arrives, the server answers others and keeps nothing."""

import os
import random
from pathlib import Path

import pytest
import trio

from tests.http_server.harness import GET, Client, echo, start
from tests.http_server.test_guard import ANSWERED, REFUSED

MUTATIONS = int(os.environ.get("RBEE_TEST_MUTATIONS", "1000"))
CORPUS = [*ANSWERED.values(), *(request for _, request in REFUSED.values()), GET + GET]
SPICE = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b":",
    b" ",
    b"\t",
    b"0\r\n\r\n",
    b"\xff",
    b"9" * 20,
    b"chunked",
]


def mutate(chance: random.Random) -> bytes:
    request = bytearray(chance.choice(CORPUS))
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(request) + 1)
        match chance.randrange(5):
            case 0:
                request[place:place] = chance.choice(SPICE)
            case 1:
                request[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                del request[place : place + chance.randint(1, 8)]
            case 3:
                request[place:place] = request[: chance.randint(0, 64)]
            case _:
                request += chance.choice(CORPUS)
    return bytes(request)


async def _attack(client: Client, request: bytes, chance: random.Random) -> None:
    cut = chance.randrange(len(request) + 1)
    try:
        await client.send(request[:cut])
        await client.send(request[cut:])
        await client.stream.send_eof()
    except trio.BrokenResourceError:
        return
    await client.read_all()


@pytest.mark.parametrize("seed", [1])
async def test_mutated_requests_harm_nobody_and_keep_no_descriptor(
    seed: int, nursery: trio.Nursery
) -> None:
    chance = random.Random(seed)
    server = await start(nursery, echo, linger_s=0.05)
    assert await server.answers()
    before = _descriptors()
    for number in range(MUTATIONS):
        request = mutate(chance)
        async with await server.connect() as client:
            with trio.fail_after(5):
                await _attack(client, request, chance)
        assert server.log.errors == [], f"mutation {number} of seed {seed}: {request!r}"
    async with await server.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 2\r\n\r\nok")
        assert (await client.read_answer()).body == b"ok"
    with trio.fail_after(2):
        while _descriptors() > before:
            await trio.sleep(0.01)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
