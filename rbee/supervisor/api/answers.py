"""Whole answers, as each face can send them."""

from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

JSON_TYPE: Final = (b"content-type", b"application/json")


@dataclass(slots=True)
class Answer:
    """Status, headers (without a Content-Length) and body. Also an ASGI app that sends it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = self.headers
        if self.status != 204:  # RFC 9110, 8.6: none in a 204
            headers = [*headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(
    value: object, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
) -> Answer:
    return Answer(status, [JSON_TYPE, *(headers or ())], msgspec.json.encode(value))
