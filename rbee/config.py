"""``rbee.toml``: what an operator may set, with its unit, its default and its limits.

Frozen sections, built once in `load_config` and handed down by part: a function takes the
section that it reads, never the whole `Config`. An unknown key is an error.
"""

import difflib
import enum
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from rbee.errors import ConfigError
from rbee.ids import has_hidden, is_model_name
from rbee.jwt_config import JwtConfig
from rbee.rate_limits import Limits
from rbee.section import Section

CONFIG_BYTES_MAX: Final = 1024 * 1024
REFERENCE_BYTES_MAX: Final = 512
KEEP_ALIVE_COMMENT_S_MIN: Final = 1.0  # more often it would be traffic of its own

_ORIGIN: Final = re.compile(r"https?://([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?")

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class ServerConfig(Section, frozen=True):
    """``[server]``: the HTTP face and the run directory."""

    bind: str = "127.0.0.1:7233"  # 7233 spells rbee; [::1]:7233 for IPv6
    run_dir: str = ""  # "": $XDG_RUNTIME_DIR/rbee, else /run/rbee for root, else /tmp/rbee-UID
    state_dir: str = ""  # crash reports, audit log; "": $STATE_DIRECTORY, else see the docs
    allow_plaintext: bool = False  # other machines may come without TLS: keys can be read
    allowed_hosts: tuple[str, ...] = ()  # Host names taken beside loopback names
    allowed_origins: tuple[str, ...] = ()  # of web pages that may call, as https://chat.example.com
    local: bool = True  # ZeroMQ on client.sock in run_dir, for programs of the same user
    lane: bool = True  # the hot routes past hypercorn; off: every request goes through it
    body_bytes_max: Annotated[int, Meta(ge=1024, le=8 * 1024 * 1024)] = 1024 * 1024
    body_timeout_s: Seconds = 30.0  # a request's body must have come by then
    deadline_s: Seconds = 300.0  # of a request that names none
    deadline_s_max: Seconds = 3600.0
    first_token_timeout_s: Seconds = 300.0  # from a request's arrival to its first token
    stall_timeout_s: Seconds = 120.0  # from one token of a request to the next
    # A stream that has begun says that it is there after so long without a token. 0: it does not.
    keep_alive_comment_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 12.0  # running streams after SIGTERM
    queue_requests_max: Annotated[int, Meta(ge=0, le=100_000)] = 1024  # waiting, over all models
    # Waiting, prompts and the answers they ask for; of prompts, a third of their letters counts.
    queue_tokens_max: Annotated[int, Meta(ge=1, le=1 << 40)] = 16_000_000
    # Of the file systems of state_dir and run_dir: with less free than both, it is told.
    disk_free_part_min: Annotated[float, Meta(ge=0, le=1)] = 0.1
    disk_free_bytes_min: Annotated[int, Meta(ge=0, le=1 << 50)] = 1024 * 1024 * 1024
    parked_bytes_max: Annotated[int, Meta(ge=4096, le=16 * 1024 * 1024)] = 256 * 1024  # per client
    dumpable: bool = False  # whether others of this user may trace us, or find a core dump

    def __post_init__(self) -> None:
        if 0 < self.keep_alive_comment_s < KEEP_ALIVE_COMMENT_S_MIN:
            raise ValueError(
                f"keep_alive_comment_s must be 0 (off) or at least {KEEP_ALIVE_COMMENT_S_MIN:g}"
            )
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "allowed_origins must be as browsers send them: a scheme and a host in lower"
                    " case, and a port where it is not the scheme's own"
                )


class AccessConfig(Section, frozen=True):
    """``[access]``: who may come in. The keys themselves are in the store: `rbee keys`."""

    required: bool = False  # ask for keys even while there are none; with the first they are
    # Wrong keys or forged JWTs before an address, or the id of a key, has to wait, and how many
    # of them are forgiven from then on.
    address_failures_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    address_forgiven_per_s: Annotated[float, Meta(ge=0.001, le=1000)] = 0.5
    id_failures_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    id_forgiven_per_s: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0


class TlsConfig(Section, frozen=True):
    """``[tls]``: what HTTPS shows to clients. Both files are read again at SIGHUP."""

    # Paths, or credential:NAME of systemd.
    certificate_file: str = ""  # PEM, the server's own first, then the chain; "": plain HTTP
    key_file: str = ""  # PEM, without a passphrase; a secret's file

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file are both needed for TLS, or neither")

    @property
    def is_on(self) -> bool:
        return bool(self.certificate_file)


class WorkerConfig(Section, frozen=True):
    """``[worker]``: how one engine process is started, watched and stopped."""

    hello_timeout_s: Seconds = 60.0  # from spawn to Hello: a cold disk imports slowly
    load_stall_s: Seconds = 30.0  # loading without progress
    load_timeout_s: Seconds = 3600.0  # loading in all
    step_stall_s: Seconds = 60.0  # one engine step, before it is known how long they take
    step_stall_s_min: Seconds = 10.0  # ... and once it is: 20 times the slowest, from here
    step_stall_s_max: Seconds = 600.0  # ... to here
    prompt_timeout_s: Seconds = 3600.0  # steps through prompts that bring nobody a token
    beat_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    beats_missed_max: Annotated[int, Meta(ge=1, le=100)] = 2
    term_after_s: Annotated[float, Meta(ge=0, le=60)] = 5.0  # from Stop to SIGTERM
    kill_after_s: Annotated[float, Meta(ge=0, le=120)] = 10.0  # from Stop to SIGKILL
    failovers_max: Annotated[int, Meta(ge=0, le=1000)] = 3  # of a request in a row, without a token
    quarantine_s: Annotated[float, Meta(ge=0, le=604_800)] = 3600.0  # of what crashes workers
    # Whom a worker becomes before it reads a model: name or uid; "": it stays the supervisor's.
    user: Annotated[str, Meta(max_length=256)] = ""


class RestartConfig(Section, frozen=True):
    """``[restart]``: when a slot whose worker ended is filled again."""

    delay_s_min: Annotated[float, Meta(ge=0, le=60)] = 1.0  # doubles with each failure in a row
    delay_s_max: Seconds = 60.0
    jitter: Annotated[float, Meta(ge=0, le=0.5)] = 0.1  # part of the delay, either way
    failures_max: Annotated[int, Meta(ge=1, le=1000)] = 3  # restarts in a row, then failed
    forget_after_s: Seconds = 300.0  # of good service
    cooldown_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0  # then one trial; 0: never
    on_hopeless: Literal["stay", "exit"] = "stay"  # when every slot has failed for good


class GpuConfig(Section, frozen=True):
    """``[gpu]``: when a worker is let onto a GPU."""

    temperature_c_max: Annotated[float, Meta(ge=1, le=150)] | None = None  # None: the card's own
    room_timeout_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0  # for memory that others hold
    release_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0  # for memory of who has ended
    look_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0  # from one look at the GPUs to the next


class LogConfig(Section, frozen=True):
    """``[log]``: to stderr."""

    format: Literal["auto", "json", "text"] = "auto"  # auto: text on a terminal, else JSON lines
    level: Literal["debug", "info", "warning", "error"] = "info"


class AuditConfig(Section, frozen=True):
    """``[audit]``: who did what, in a chain of hashes, under ``state_dir``."""

    enabled: bool = True
    secret_file: str = ""  # seals every entry with a key derived from its line; "": no seals
    file_bytes_max: Annotated[int, Meta(ge=4096, le=1 << 34)] = 64 * 1024 * 1024  # then a new one
    file_age_s: Annotated[float, Meta(ge=1, le=366 * 86_400)] = 604_800.0  # then a new one
    files_max: Annotated[int, Meta(ge=2, le=10_000)] = 52  # kept, with the one that is written
    sync_s: Annotated[float, Meta(gt=0, le=60)] = 1.0  # on disk by then, where nobody waits for it
    on_failure: Literal["open", "closed"] = "closed"  # what concerns security, without a record


Fault = Literal[
    "hang_in_step", "hang_with_gil", "crash", "exit", "out_of_memory", "garbage", "stuck_load",
    "ignore_stop", "ignore_all", "silent_step", "oversize", "hog_memory", "stray_child",
    "exit_in_load", "spin_with_gil", "panic", "chatter", "fork_bomb", "leak_descriptors",
    "repeat", "unasked", "flood", "no_beats", "as_prompted",
]  # fmt: skip


class SyntheticConfig(Section, frozen=True):
    """``[model.synthetic]``: an engine without a model, for load and fault tests."""

    tokens_per_s: Annotated[float, Meta(gt=0, le=1e6)] = 50.0  # of each stream
    first_token_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
    load_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    context_length: Annotated[int, Meta(ge=16, le=1 << 24)] = 4096
    # Reserved for it on the GPU `gpu`, though it takes nothing: to try how workers share one.
    vram_bytes: Annotated[int, Meta(ge=0, le=1 << 46)] = 0
    # What goes wrong, and when. Without ``fault_prompt`` it happens when ``fault_after_steps``
    # steps are done; with it, once a request holds that text.
    fault: Fault | None = None
    fault_after_steps: Annotated[int, Meta(ge=0)] = 0
    fault_prompt: str | None = None
    exit_code: Annotated[int, Meta(ge=0, le=255)] = 1  # of the faults "exit", "exit_in_load"
    signal: Annotated[int, Meta(ge=1, le=64)] = 11  # of the fault "crash"
    hog_bytes: Annotated[int, Meta(ge=1, le=1 << 46)] = 1 << 30  # of the fault "hog_memory"


class ModelConfig(Section, frozen=True):
    """``[[model]]``: one model, and the slots that hold workers for it."""

    ref: str  # bee-tiny | synthetic | file:PATH of a .gguf file, or a folder in HF or EXL2 form
    name: str = ""  # what clients ask for; "": made from ref
    engine: Literal["auto", "llamacpp", "exllamav2", "synthetic"] = "auto"
    slots: Annotated[int, Meta(ge=1, le=64)] = 1  # replicas
    context_length: Annotated[int, Meta(ge=16, le=1 << 24)] | None = None  # None: the model's own
    batch_size: Annotated[int, Meta(ge=1, le=4096)] | None = None  # requests at once
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None  # CPU engine; None: cores / workers
    gpu: Annotated[int, Meta(ge=0, le=63)] = 0
    vram_fraction: Annotated[float, Meta(gt=0, le=1)] = 0.95  # of the GPU's memory, at most
    cache_tokens: Annotated[int, Meta(ge=256, le=1 << 26)] | None = None  # of all requests together
    cache_bits: Literal[4, 6, 8, 16] = 16  # exllamav2: quantised key/value cache
    # Who finds what a worker keeps of requests: the same client's next ones, or everybody's.
    share_cache: Literal["client", "all"] = "client"
    # Limits of one worker with all that it starts; docs/limits.md says what holds them.
    memory_bytes_max: Annotated[int, Meta(ge=1 << 26, le=1 << 50)] | None = None
    cpus: Annotated[float, Meta(ge=0.01, le=4096)] | None = None  # cores' worth of time
    tasks_max: Annotated[int, Meta(ge=16, le=1 << 22)] | None = None  # processes and threads
    synthetic: SyntheticConfig = SyntheticConfig()

    def __post_init__(self) -> None:
        if not 1 <= len(self.ref.encode("utf-8", "replace")) <= REFERENCE_BYTES_MAX:
            raise ValueError(f"ref must have at least 1 and at most {REFERENCE_BYTES_MAX} bytes")
        if has_hidden(self.ref):
            raise ValueError("ref must hold no control characters")
        if self.name and not is_model_name(self.name):
            raise ValueError("name may hold 128 letters, digits and '._:/-'")


class Config(Section, frozen=True):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    tls: TlsConfig = TlsConfig()
    access: AccessConfig = AccessConfig()
    worker: WorkerConfig = WorkerConfig()
    restart: RestartConfig = RestartConfig()
    gpu: GpuConfig = GpuConfig()
    log: LogConfig = LogConfig()
    audit: AuditConfig = AuditConfig()
    jwt: JwtConfig = JwtConfig()
    model: tuple[ModelConfig, ...] = (ModelConfig(ref="bee-tiny"),)

    def __post_init__(self) -> None:
        if self.worker.kill_after_s < self.worker.term_after_s:
            raise ValueError("worker.kill_after_s must not be below worker.term_after_s")
        if self.server.deadline_s > self.server.deadline_s_max:
            raise ValueError("server.deadline_s must not be above server.deadline_s_max")
        names = [model_name(model) for model in self.model]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"model name {min(twice)!r} stands twice; names must differ")


def model_name(model: ModelConfig) -> str:
    """What clients call the model: its name, else the last part of its reference."""
    if model.name:
        return model.name
    stem = re.sub(r"\.gguf$", "", model.ref.rsplit("/", 1)[-1].rsplit(":", 1)[-1])
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "model"
    return cleaned[:128]


def load_config(path: Path) -> Config:
    """Read ``rbee.toml``.

    Raises:
      ConfigError: with the file and the key, in words an operator can act on.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path}: longer than {CONFIG_BYTES_MAX} bytes")
    try:
        return parse_config(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_config(text: str) -> Config:
    """Read the text of an ``rbee.toml``.

    Raises:
      ConfigError: not TOML, or not a configuration; names the key.
    """
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError("nested too deep") from error
    except ValueError as error:  # not TOML; or a number of thousands of digits
        raise ConfigError(str(error)) from error
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_in_our_words(str(error))) from error
    _refuse_hidden(table, "")
    return config


def _refuse_hidden(value: object, where: str) -> None:
    """No text of a configuration may hold what its reader does not see.

    Raises:
      ConfigError: names the key.
    """
    match value:
        case str() if has_hidden(value):
            raise ConfigError(f"{where}: holds control characters, found {value!a}")
        case dict():
            for name, each in value.items():
                _refuse_hidden(each, f"{where}.{name}".lstrip("."))
        case list():
            for number, each in enumerate(value):
                _refuse_hidden(each, f"{where}[{number}]")


# A key may hold anything, also what looks like the place that msgspec adds.
_PROBLEM: Final = re.compile(
    r"(?P<message>.*?)(?: - at (?:`key` in )?`\$\.?(?P<where>[A-Za-z_.\[\]0-9]*)`)?", re.DOTALL
)


def _in_our_words(problem: str) -> str:
    """``msgspec``'s message with the key's path in front, and what was probably meant."""
    match = _PROBLEM.fullmatch(problem)
    assert match is not None, "anything fits the message"
    message, where = match["message"], match["where"] or "the file"
    unknown = re.search(r"contains unknown field `(.*)`", message, re.DOTALL)
    if unknown is None:
        return f"{where}: {message}{_choices_told(message, where)}"
    known = sorted(_keys_at(where))
    close = difflib.get_close_matches(unknown[1], known, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
    return f"{where}: unknown key {unknown[1]!a}{meant}"


def _choices_told(message: str, where: str) -> str:
    """What may stand there, where the message is that something else does."""
    if not message.startswith("Invalid enum value"):
        return ""
    section, _, key = re.sub(r"\[[^\]]*\]", "", where).rpartition(".")
    choices = _choices(get_type_hints(_SECTIONS[section or "the file"])[key])
    return f"; may be {', '.join(map(str, choices))}"


def _choices(hint: object) -> tuple[object, ...]:
    """Of the `Literal` or enum in a type, however deep it is."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return tuple(each.value for each in hint)
    return tuple(choice for part in get_args(hint) for choice in _choices(part))


_SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "the file": Config,
    "server": ServerConfig,
    "tls": TlsConfig,
    "access": AccessConfig,
    "worker": WorkerConfig,
    "restart": RestartConfig,
    "gpu": GpuConfig,
    "log": LogConfig,
    "audit": AuditConfig,
    "jwt": JwtConfig,
    "jwt.limits": Limits,
    "jwt.role_limits": Limits,
    "model": ModelConfig,
    "model.synthetic": SyntheticConfig,
}


def _keys_at(where: str) -> set[str]:
    section = _SECTIONS[re.sub(r"\[[^\]]*\]", "", where)]
    return {field.encode_name for field in msgspec.structs.fields(section)}
