"""What the baseline's supervisor and workers say to each other: msgpack by msgspec."""

from typing import Final

import msgspec


class Generate(msgspec.Struct, array_like=True, tag=True):
    """Supervisor to worker: count to ``tokens_max``."""

    request_id: int
    prompt: str
    tokens_max: int


class Cancel(msgspec.Struct, array_like=True, tag=True):
    """Supervisor to worker: the client is gone."""

    request_id: int


class Delta(msgspec.Struct, array_like=True):
    """What one step brought one request."""

    request_id: int
    text: str
    finish: str | None = None


encoder: Final = msgspec.msgpack.Encoder()
