"""How answers end that their clients do not wait for, on the lane and without it."""

import functools

import pytest

from tests.api.served import Serving, chat, serve_face

LAST_CHUNK = b"0\r\n\r\n"


@pytest.fixture(params=[True, False], ids=["lane", "without the lane"])
def serving(request: pytest.FixtureRequest) -> Serving:
    return functools.partial(serve_face, has_lane=request.param)


async def test_a_stream_that_is_broken_off_has_no_proper_end(serving: Serving) -> None:
    async with serving() as served, await served.connect() as client:
        await client.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        asked.push("1 ")
        await client.read_until(b'"1 "')
        await client.stream.send_eof()
        assert LAST_CHUNK not in await client.read_all()
    assert [each["outcome"] for each in served.log.of("request_done")] == ["client_gone"]
    assert served.errors == []
