"""The worker protocol: what supervisor and worker may say to each other.

No socket, no clock and no await in this file: a ZeroMQ message comes in as a list of frames
and goes out as one. `transport` moves the frames and knows no message; `dialogue` knows who
may say what when.

    frame 0   the protocol and its version, `VERSION`
    frame 1   one msgpack map; its "type" says which message it is

Rule 1: whatever bytes arrive give a message or a `RemoteProtocolError`.
Rule 2: no extension types, no pickle; unknown fields are errors; sizes are bounded.
"""

import enum
from signal import SIGQUIT
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from rbee.ask import Ask, FinishReason, TokenLogprob
from rbee.config import ModelConfig
from rbee.errors import ErrorCode, RemoteProtocolError

VERSION: Final = b"rbee/1"

# Longest body that is decoded. The largest honest one is a Generate whose prompt is a request
# body of some MiB; a peer that sends more is broken, not busy.
BODY_BYTES_MAX: Final = 16 * 1024 * 1024

# Not a message, but said between the same two: a worker that gets it prints the stacks of its
# threads to stderr. It does so from C, and so also while a call holds the interpreter lock.
STACKS_SIGNAL: Final = SIGQUIT

SHORT_TEXT_MAX: Final = 4096
CACHE_SALT_BYTES_MAX: Final = 32
ShortText = Annotated[str, Meta(max_length=SHORT_TEXT_MAX)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
RequestId = Annotated[int, Meta(ge=1, lt=2**53)]
TokenId = Annotated[int, Meta(ge=0, lt=2**32)]


class Phase(enum.Enum):
    """What a worker is doing, declared before it begins a call that blocks."""

    IMPORTING = "importing"
    LOADING = "loading"
    WARMING = "warming"
    IDLE = "idle"
    PREFILL = "prefill"
    DECODE = "decode"
    DRAINING = "draining"


class WireMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of all messages. Match on the subclasses."""


# --- supervisor to worker


class Welcome(WireMessage, frozen=True, tag="welcome"):
    """The answer to a good Hello: what to load."""

    model: ModelConfig  # ``engine`` is no longer "auto"
    path: str  # of the model's file or folder; "" for synthetic
    threads: int  # for engines that compute on the CPU
    beat_s: float
    vram_bytes_max: Count | None = None  # reserved for it on its GPU; None: nobody has counted


class Generate(WireMessage, frozen=True, tag="generate"):
    """Start a request. ``resume_ids`` were delivered already by a worker that is gone.

    What a worker keeps of requests, to be quicker with the next, is for those with the same
    ``cache_salt`` alone.
    """

    request_id: RequestId
    ask: Ask
    remaining_ms: Count  # until the deadline, from when this was sent
    correlation_id: ShortText
    resume_ids: tuple[TokenId, ...] = ()
    cache_salt: Annotated[bytes, Meta(max_length=CACHE_SALT_BYTES_MAX)] = b""


class Cancel(WireMessage, frozen=True, tag="cancel"):
    """Stop a request. The worker answers with the request's last delta or a Failed."""

    request_id: RequestId


class Drain(WireMessage, frozen=True, tag="drain"):
    """Finish what is open; nothing new will come. The worker says Bye when it is done."""


class Stop(WireMessage, frozen=True, tag="stop"):
    """End now. Open requests are dropped. Also the answer to Bye."""


# --- worker to supervisor


class Hello(WireMessage, frozen=True, tag="hello"):
    """The first word: who is there, and the one-time secret that proves it."""

    secret: Annotated[bytes, Meta(max_length=64)]
    pid: Count
    rbee_version: ShortText


class Loading(WireMessage, frozen=True, tag="loading"):
    """How far loading is. ``fraction`` that grows, or a new phase, is progress."""

    phase: Phase
    fraction: Annotated[float, Meta(ge=0, le=1)]


class Ready(WireMessage, frozen=True, tag="ready"):
    """The model is loaded: requests may come."""

    engine: ShortText
    device: ShortText  # "cpu", "cuda:0 NVIDIA H200", "none"
    context_length: Count  # tokens of prompt and answer together, of one request
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]  # requests at once
    features: tuple[ShortText, ...]  # of `rbee.engine.engine.Feature`
    vram_bytes: Count
    detail: dict[ShortText, ShortText]  # for the operator: attention, cache


class Delta(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one engine step brought one request. The last one has ``finish`` set.

    ``text`` may be empty while ``token_ids`` is not (half a character, or what may become a
    stop string), and the other way round on the last delta.
    """

    request_id: RequestId
    index: Count  # tokens of this answer that came before this delta: no gap, no repetition
    token_ids: tuple[TokenId, ...]
    text: str
    finish: FinishReason | None = None
    prompt_tokens: Count = 0  # in the first delta of a request; then 0
    logprobs: tuple[TokenLogprob, ...] = ()


class Step(WireMessage, frozen=True, tag="step"):
    """One engine step: one message, whatever the number of streams."""

    step: Count
    deltas: tuple[Delta, ...]


class Failed(WireMessage, frozen=True, tag="failed"):
    """One request cannot go on; the others do."""

    request_id: RequestId
    code: ErrorCode
    message: ShortText
    param: ShortText | None = None


class Beat(WireMessage, frozen=True, tag="beat"):
    """Sign of life and of progress, every ``beat_s``. A zero below: not measured, or none."""

    phase: Phase
    step: Count  # engine steps done
    tokens: Count  # delivered in all
    requests: dict[int, Count]  # open request -> tokens delivered
    oldest_request_age_s: float
    rss_bytes: Count
    vram_bytes: Count
    prompt_tokens: Count = 0  # of the open requests that have no token yet
    step_s: Annotated[float, Meta(ge=0)] = 0.0  # 99 of 100 of the last steps were quicker
    read_tokens: Count = 0  # of prompts, in all; also of answers that are gone on with
    read_tokens_per_s: Annotated[float, Meta(ge=0)] = 0.0  # in the last steps that read some


class Bye(WireMessage, frozen=True, tag="bye"):
    """The last word: why the worker ends. An ``exit_code`` other than 0 is a failure.

    It is answered by Stop; the worker holds the link until then, as what is queued in it would
    be lost with the process.
    """

    reason: ShortText
    exit_code: Annotated[int, Meta(ge=0, le=255)]


FromSupervisor = Welcome | Generate | Cancel | Drain | Stop
FromWorker = Hello | Loading | Ready | Step | Failed | Beat | Bye

_encoder: Final = msgspec.msgpack.Encoder()
_from_supervisor: Final[msgspec.msgpack.Decoder[FromSupervisor]] = msgspec.msgpack.Decoder(
    FromSupervisor
)
_from_worker: Final[msgspec.msgpack.Decoder[FromWorker]] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: FromSupervisor | FromWorker) -> list[bytes]:
    return [VERSION, _encoder.encode(message)]


def decode_from_supervisor(frames: list[bytes]) -> FromSupervisor:
    """Read one message in a worker.

    Raises:
      RemoteProtocolError: the frames are not a message of this protocol version.
    """
    body = _checked_body(frames)
    try:
        return _from_supervisor.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(str(error)) from error


def decode_from_worker(frames: list[bytes]) -> FromWorker:
    """Read one message in the supervisor.

    Raises:
      RemoteProtocolError: the frames are not a message of this protocol version.
    """
    body = _checked_body(frames)
    try:
        return _from_worker.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(str(error)) from error


def _checked_body(frames: list[bytes]) -> bytes:
    if len(frames) != 2:
        raise RemoteProtocolError(f"expected 2 frames, got {len(frames)}")
    version, body = frames
    if version != VERSION:
        raise RemoteProtocolError(f"expected {VERSION!r}, got {version[:32]!r}")
    if len(body) > BODY_BYTES_MAX:
        raise RemoteProtocolError(f"body of {len(body)} bytes is over {BODY_BYTES_MAX}")
    return body
