"""A client for programs on the server's own machine, over ZeroMQ instead of HTTP.

    from rbee.client import Client

    with Client() as client:
        for delta in client.complete("2 plus 3 is", model="bee-tiny", stream=True):
            print(delta.text, end="")

`AsyncClient` is the same for trio and for asyncio. Both find the server by its run directory. What
goes wrong is a `ClientError`. docs/local.md has more.

errors.py   what can go wrong
place.py    where the server's socket is, and whether it can be another user's
link.py     one ZeroMQ connection, without waiting
talk.py     one request and its answer, written once for all ways to wait
answers.py  what comes back
coming.py   an answer of which more will come
asking.py   what is sent
plain.py    `Client`, which blocks
waiting.py  how trio and asyncio wait
tasks.py    `AsyncClient`
"""

from rbee.client.answers import Completion, Delta, Response
from rbee.client.errors import (
    AnswerError,
    BadAnswerError,
    BadRequestError,
    ClientError,
    ForeignServerError,
    ServerGoneError,
    TimedOutError,
)
from rbee.client.plain import Client, Stream
from rbee.client.tasks import AsyncClient, AsyncStream

__all__ = [
    "AnswerError", "AsyncClient", "AsyncStream", "BadAnswerError", "BadRequestError", "Client",
    "ClientError", "Completion", "Delta", "ForeignServerError", "Response", "ServerGoneError",
    "Stream", "TimedOutError",
]  # fmt: skip
