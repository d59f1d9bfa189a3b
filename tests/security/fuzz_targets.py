"""What reads bytes from outside, and what may come of it: the targets of `tests.security.fuzz`.

Rule: a target's function gets any bytes. What it lets out, but for its declared exceptions, is a
      finding; so is a broken assertion.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.ask import Ask, Message, TokenLogprob
from rbee.audit.chain import GENESIS, Note, read_line, write_lines
from rbee.audit.events import Outcome, RequestEnd
from rbee.audit.verify import Verifier
from rbee.config import ModelConfig, parse_config
from rbee.dialogue import SupervisorDialogue, WorkerDialogue
from rbee.engine.chat import ChatTemplate
from rbee.errors import ConfigError, EngineError, ErrorCode, RemoteProtocolError, RequestError
from rbee.supervisor.api.admission import check_correlation_id, check_host, check_origin
from rbee.supervisor.api.chat_body import read_chat
from rbee.supervisor.api.chat_shape import ChatShape
from rbee.supervisor.api.completion_body import read_completion
from rbee.supervisor.api.completion_shape import CompletionShape
from rbee.supervisor.api.deadlines import read_remaining
from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.http_server.guard import find_fault
from rbee.supervisor.lane import Machine, Request
from rbee.supervisor.lane.head import read_head
from rbee.wire import (
    VERSION,
    Beat,
    Bye,
    Cancel,
    Delta,
    Drain,
    Failed,
    FromSupervisor,
    FromWorker,
    Generate,
    Hello,
    Loading,
    Phase,
    Ready,
    Step,
    Stop,
    Welcome,
    decode_from_supervisor,
    decode_from_worker,
    encode,
)
from tests.lane.corpus import CORPUS

ROOT: Final = Path(__file__).parents[2]
SECRET: Final = b"s" * 32
PID: Final = 42
ASK: Final = Ask(model="m", messages=(Message(role="user", content="hi"),), stop=("x",))
LOGPROB: Final = TokenLogprob(3, b"\xe2", -0.5, ((3, b"a", -0.5),))

FROM_WORKER: Final[tuple[FromWorker, ...]] = (
    Hello(SECRET, PID, "0.1.0"),
    Loading(Phase.LOADING, 0.5),
    Ready("synthetic", "none", 4096, 8, ("chat",), 0, {"attention": "none"}),
    Step(1, (Delta(1, 0, (5,), "a", None, 7, (LOGPROB,)), Delta(2, 0, (6, 7), "b", "stop"))),
    Failed(1, ErrorCode.CANCELLED, "cancelled", "prompt"),
    Beat(Phase.DECODE, 1, 2, {1: 3}, 0.5, 1, 2),
    Bye("stopped", 0),
)
WELCOME: Final = Welcome(ModelConfig(ref="synthetic"), "", 1, 5.0)
FROM_SUPERVISOR: Final[tuple[FromSupervisor, ...]] = (
    WELCOME,
    Generate(1, ASK, 1000, "cid", (5, 6)),
    Cancel(1),
    Drain(),
    Stop(),
)


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of bytes."""

    name: str
    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    declared: tuple[type[BaseException], ...] = ()
    cpu_s_max: float = 0.25  # of one input of 64 KiB; the machine may be slow


# --- the link


def _dialogue(data: bytes) -> None:
    """Two peers that say a part of what they may, then anything."""
    parts = data[1:].split(b"|rbee|")
    supervisor = SupervisorDialogue(SECRET, PID)
    for message in FROM_WORKER[: data[0] % len(FROM_WORKER) if data else 0]:
        supervisor.receive(encode(message))
        if isinstance(message, Hello):
            supervisor.welcome(WELCOME)
        if isinstance(message, Ready):
            supervisor.generate(1, ASK, 1000, "cid")
            supervisor.generate(2, ASK, 1000, "cid")
    with contextlib.suppress(RemoteProtocolError):
        for part in parts:
            supervisor.receive([VERSION, part])
            assert supervisor.open_requests <= 2
    worker = WorkerDialogue()
    worker.send(FROM_WORKER[0])
    worker.receive(encode(WELCOME))
    worker.send(FROM_WORKER[2])
    for part in parts:
        worker.receive([VERSION, part])


def _bodies(*messages: FromWorker | FromSupervisor) -> list[bytes]:
    return [encode(each)[1] for each in messages]


# --- HTTP


def _head(data: bytes) -> None:
    fault = find_fault(data, HttpLimits())
    if fault is None and data.endswith(b"\r\n\r\n"):
        read_head(data)


def _lane(data: bytes) -> None:
    machine = Machine(HttpLimits(), lambda _method, _target: True, 4096, lambda: b"today")
    half = len(data) // 2
    for part in (data[:half], data[half:]):
        machine.receive(part)
        for _ in range(len(data) + 1):
            event = machine.next_event()
            if event is None:
                break
            if isinstance(event, Request):
                machine.answer(200, [], b"ok")


def _headers(data: bytes) -> None:
    """Values of the headers that are read, one a line, as HTTP hands them on."""
    values = [line.decode("latin-1") for line in data.split(b"\n")[:4]]
    readers: list[Callable[[], object]] = [
        lambda: check_correlation_id(values[:2]),
        lambda: check_host(values[:1], ("box.lan",)),
        lambda: check_origin(values[:1], values[1:2], ("box.lan",)),
        lambda: read_remaining(
            values[:1], values[1:2], default_s=3, highest_s=9, now_unix_s=1_900_000_000
        ),
    ]
    for read in readers:
        with contextlib.suppress(RequestError):
            read()


def _chat_body(data: bytes) -> None:
    assert read_chat(data).asks


def _completion_body(data: bytes) -> None:
    assert read_completion(data).asks


# --- streams


_CHAT_ORDER: Final = read_chat(
    b'{"model":"m","messages":[{"role":"user","content":"a"}],"logprobs":true,"top_logprobs":2}'
)
_TEXT_ORDER: Final = read_completion(b'{"model":"m","prompt":"a","logprobs":2}')


def _sse(data: bytes) -> None:
    """Whatever an engine says comes back as it was, by whatever reader of lines."""
    text = data.decode("utf-8", "replace")
    logprob = TokenLogprob(1, data[:64], -1.0, ((2, data[-16:], -2.0),))
    deltas = (Delta(1, 0, (1,), text), Delta(1, 1, (2,), text, "stop", 0, (logprob,)))
    chat, plain = ChatShape("chatcmpl-1", 1, _CHAT_ORDER), CompletionShape("cmpl-1", 1, _TEXT_ORDER)
    told = [_events(chat.chunk(0, delta)) for delta in deltas]
    contents = [c["choices"][0]["delta"].get("content", "") for chunks in told for c in chunks]
    assert "".join(contents) == text * 2
    told = [_events(plain.chunk(0, delta)) for delta in deltas]
    assert "".join(c["choices"][0]["text"] for chunks in told for c in chunks) == text * 2


def _events(payload: bytes) -> list[dict[str, list[dict[str, dict[str, str] | str]]]]:
    blocks = payload.split(b"\n\n")
    assert blocks.pop() == b""
    for block in blocks:
        assert block.startswith(b"data: ")
        assert len(block.decode().splitlines()) == 1
    return [json.loads(block[6:]) for block in blocks]


# --- files


def _config(data: bytes) -> None:
    parse_config(data.decode("utf-8", "replace"))


_LINES, _HEAD = write_lines(
    GENESIS,
    [Note(RequestEnd("/v1", "m", "ok", 1, 2, 3), "key:1", Outcome.SUCCESS, "cid", 10**18)] * 2,
    b"k" * 32,
)


def _audit(data: bytes) -> None:
    verifier = Verifier((None, None), [b"k" * 32])
    verifier.begin_file("audit.jsonl")
    for line in data.splitlines(keepends=True)[:8]:
        read_line(line[:-1])
        if not verifier.take(line):
            break
    verdict = verifier.finish()
    assert verdict.flaw is not None, "nothing without an anchor is without a flaw"


# --- the model's own


_TEMPLATES: Final = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}",
    (
        "{% set ns = namespace(x=0) %}{% for m in messages %}{% set ns.x = ns.x + 1 %}{{ ns.x }}"
        "{% if loop.last and m['role'] == 'user' %}{{ m.content.split('a')[0] }}{% endif %}"
        "{% endfor %}"
        "{% macro f(a, b=2) %}{{ a ~ b }}{% endmacro %}{{ f('x') }}{{ strftime_now('%Y') }}"
    ),
    (
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% else %}"
        "{{ raise_exception('no system') }}{% endif %}{{ s[::-1] * 3 if add_generation_prompt }}"
    ),
)
_TALK: Final = (Message(role="user", content="hello a b"),)


def _template(data: bytes) -> None:
    template = ChatTemplate(data.decode("utf-8", "replace"), "<s>", "</s>")
    assert isinstance(template.render(_TALK), str)


def _words(text: str) -> list[bytes]:
    return [each.encode() for each in text.split()]


_JSON_WORDS: Final = _words('{ } [ ] : , "a":1, null true 1e400 "\\ud800" {"a": [[ [{ "model":')
_HTTP_WORDS: Final = [
    *_words("GET POST /v1/models HTTP/1.1 Host: Content-Length: Transfer-Encoding: chunked close"),
    b"\r\n", b"\r\n\r\n", b"\r\n ", b": ", b"Content-Length: 3\r\n", b"Host: localhost\r\n",
]  # fmt: skip

TARGETS: Final = (
    Target(
        "wire-from-worker", lambda data: decode_from_worker([VERSION, data]),
        _bodies(*FROM_WORKER), _words("type step deltas beat phase"), (RemoteProtocolError,),
    ),
    Target(
        "wire-from-supervisor", lambda data: decode_from_supervisor([VERSION, data]),
        _bodies(*FROM_SUPERVISOR), _words("type ask model generate"), (RemoteProtocolError,),
    ),
    Target(
        "dialogue", _dialogue,
        [
            bytes([said]) + b"|rbee|".join(bodies)
            for said in range(7)
            for bodies in ([_bodies(each)[0]] for each in (*FROM_WORKER, *FROM_SUPERVISOR))
        ],
        [b"|rbee|", *_bodies(*FROM_WORKER, *FROM_SUPERVISOR)], (RemoteProtocolError,),
    ),
    Target("http-head", _head, list(CORPUS.values()), _HTTP_WORDS),
    Target("lane", _lane, list(CORPUS.values()), _HTTP_WORDS),
    Target(
        "headers", _headers,
        [b"localhost:7233\nhttp://localhost:7233\n5\n2030-03-17T17:47:00Z", b"[::1]:80\nid-1"],
        _words("http:// https:// localhost 127.0.0.1 [::1] 2030-01-01T00:00:00+01:00 1e3 nan"),
    ),
    Target(
        "chat-body", _chat_body,
        [
            b'{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2,"stop":["a"]}',
            (b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],'
            b'"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{}}}}'),
        ],
        [*_JSON_WORDS, *_words('"messages": "role": "content": "stop": "logit_bias":')],
        (RequestError,),
    ),
    Target(
        "completion-body", _completion_body,
        [b'{"model":"m","prompt":["a","b"],"logprobs":2}', b'{"model":"m","prompt":[[1,2],[3]]}'],
        [*_JSON_WORDS, b'"prompt":'], (RequestError,),
    ),
    Target(
        "sse", _sse, [b"hello", "a\u2028b\u0085c\r\n\n\ud7ff".encode(), b"data: [DONE]\n\n"],
        [b"\n\n", b"data: ", b"\r", b"\xe2\x80\xa9", b"\xc2\x85", b"\x0b", b"\x0c", b"\x1c"],
    ),
    Target(
        "config", _config,
        [
            (ROOT / "rbee.toml.example").read_bytes(),
            b'[server]\nbind = "a"\n[[model]]\nref = "x"\n',
        ],
        [
            *_words('[server] [[model]] [model.synthetic] ref name = "x" 1_000 0x1 1979-05-27 inf'),
            b"a = [", b"{a = ", b'" - at `$.a`', b'"a - at `" = 1\n', b"\na = " + b"9" * 5000,
        ],
        (ConfigError,),
    ),
    Target(
        "audit-line", _audit, [*_LINES, b"".join(_LINES)],
        [*_JSON_WORDS, b',"hash":"', b',"seal":"', b'"}\n', b"0" * 64],
    ),
    Target(
        "chat-template", _template, [each.encode() for each in _TEMPLATES],
        _words("{{ }} {% %} if for endfor in range(9) .__class__ |join |length ~ ** % [0] macro"),
        (EngineError, RequestError), cpu_s_max=4.0,
    ),
)  # fmt: skip
