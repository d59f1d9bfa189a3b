"""What reads bytes from outside, and what may come of it: the targets of `tests.security.fuzz`.

Rule: a target's function gets any bytes. What it lets out, but for its declared exceptions, is a
      finding; so is a broken assertion.
"""

import contextlib
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
from tests.security.http_targets import HTTP_TARGETS
from tests.security.jwt_targets import JWT_TARGETS
from tests.security.local_targets import LOCAL_TARGETS
from tests.security.target import JSON_WORDS, Target, words

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
    Generate(1, ASK, 1000, "cid", (5, 6), b"salt"),
    Cancel(1),
    Drain(),
    Stop(),
)


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


TARGETS: Final = (
    Target(
        "wire-from-worker", lambda data: decode_from_worker([VERSION, data]),
        _bodies(*FROM_WORKER), words("type step deltas beat phase"), (RemoteProtocolError,),
    ),
    Target(
        "wire-from-supervisor", lambda data: decode_from_supervisor([VERSION, data]),
        _bodies(*FROM_SUPERVISOR), words("type ask model generate"), (RemoteProtocolError,),
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
    Target(
        "config", _config,
        [
            (ROOT / "rbee.toml.example").read_bytes(),
            b'[server]\nbind = "a"\n[[model]]\nref = "x"\n',
        ],
        [
            *words('[server] [[model]] [model.synthetic] ref name = "x" 1_000 0x1 1979-05-27 inf'),
            b"a = [", b"{a = ", b'" - at `$.a`', b'"a - at `" = 1\n', b"\na = " + b"9" * 5000,
        ],
        (ConfigError,),
    ),
    Target(
        "audit-line", _audit, [*_LINES, b"".join(_LINES)],
        [*JSON_WORDS, b',"hash":"', b',"seal":"', b'"}\n', b"0" * 64],
    ),
    Target(
        "chat-template", _template, [each.encode() for each in _TEMPLATES],
        words("{{ }} {% %} if for endfor in range(9) .__class__ |join |length ~ ** % [0] macro"),
        (EngineError, RequestError), cpu_s_max=4.0,
    ),
    *HTTP_TARGETS,
    *JWT_TARGETS,
    *LOCAL_TARGETS,
)  # fmt: skip
