"""What is audited: the names of all events, and what each of them tells.

Rule 1: no text of a prompt or an answer, no key and no secret: lengths, counts, hashes,
        fingerprints, ids.
Rule 2: texts, whole numbers, Booleans and lists of texts only. Fractions have more than one
        spelling in JSON; times are milliseconds.
Rule 3: a name, once given, keeps its meaning. Readers of old logs rely on it.
"""

import enum
from typing import ClassVar

import msgspec


class Event(enum.StrEnum):
    """Every event that can stand in an audit log. Documented in docs/audit.md."""

    WORKER_SPAWN = "worker.spawn"
    WORKER_READY = "worker.ready"
    WORKER_SHUTDOWN = "worker.shutdown"
    WORKER_CRASH = "worker.crash"
    WORKER_HANG = "worker.hang"
    WORKER_KILL = "worker.kill"
    WORKER_RESTART = "worker.restart"
    AUTH_SUCCESS = "auth.success"
    AUTH_FAILURE = "auth.failure"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    JWT_REVOKED = "jwt.revoked"
    CONFIG_LOADED = "config.loaded"
    CONFIG_RELOADED = "config.reloaded"
    CONFIG_REJECTED = "config.rejected"
    MODEL_ADDED = "model.added"
    MODEL_VERIFIED = "model.verified"
    MODEL_REJECTED = "model.rejected"
    MODEL_REMOVED = "model.removed"
    REQUEST_START = "request.start"
    REQUEST_END = "request.end"
    SUPERVISOR_START = "supervisor.start"
    SUPERVISOR_STOP = "supervisor.stop"
    LIMIT_EXCEEDED = "limit.exceeded"
    AUDIT_ROTATED = "audit.rotated"
    AUDIT_REPAIRED = "audit.repaired"
    AUDIT_DAMAGED = "audit.damaged"
    AUDIT_GAP = "audit.gap"
    AUDIT_REKEYED = "audit.rekeyed"


class Outcome(enum.StrEnum):
    """How it went for who wanted it."""

    SUCCESS = "success"
    FAILURE = "failure"  # it was tried, and went wrong
    DENIED = "denied"  # it was not even tried


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what events tell. ``event`` is the class's own."""

    event: ClassVar[Event]


class WorkerSpawn(Details, frozen=True):
    event: ClassVar = Event.WORKER_SPAWN
    worker: str
    model: str
    engine: str
    pid: int


class WorkerReady(Details, frozen=True):
    event: ClassVar = Event.WORKER_READY
    worker: str
    pid: int
    load_ms: int


class WorkerShutdown(Details, frozen=True):
    """It ended as it was asked to."""

    event: ClassVar = Event.WORKER_SHUTDOWN
    worker: str
    pid: int
    how: str


class WorkerCrash(Details, frozen=True):
    event: ClassVar = Event.WORKER_CRASH
    worker: str
    pid: int | None  # None: it could not be started
    cause: str  # as in docs/recovery.md
    exit_code: int | None
    signal: int | None
    how: str


class WorkerHang(Details, frozen=True):
    event: ClassVar = Event.WORKER_HANG
    worker: str
    pid: int
    verdict: str  # as in docs/recovery.md
    reason: str


class WorkerKill(Details, frozen=True):
    """A signal that it was not asked to await."""

    event: ClassVar = Event.WORKER_KILL
    worker: str
    pid: int
    signal: str
    reason: str


class WorkerRestart(Details, frozen=True):
    """A slot will be filled again, or will not."""

    event: ClassVar = Event.WORKER_RESTART
    worker: str
    cause: str
    failures: int  # in a row
    delay_ms: int | None  # None: it stays empty


class AuthSuccess(Details, frozen=True):
    event: ClassVar = Event.AUTH_SUCCESS
    key: str  # its id; of a JWT "jwt:" and its jti
    fingerprint: str  # first 6 hex digits of the key's SHA-256; "" of a JWT
    role: str
    route: str
    address: str


class AuthFailure(Details, frozen=True):
    event: ClassVar = Event.AUTH_FAILURE
    # "missing", "malformed", "unknown", "wrong", "expired", "revoked", "throttled"; of JWTs also
    # "claims", "not_yet_valid"
    reason: str
    fingerprint: str | None
    route: str
    address: str
    times: int = 1  # as often within a minute; the others were as this one, or for another reason


class KeyCreated(Details, frozen=True):
    event: ClassVar = Event.KEY_CREATED
    key: str
    fingerprint: str
    role: str
    models: tuple[str, ...]
    expires: str | None  # RFC 3339


class KeyRevoked(Details, frozen=True):
    event: ClassVar = Event.KEY_REVOKED
    key: str
    fingerprint: str
    reason: str


class JwtRevoked(Details, frozen=True):
    event: ClassVar = Event.JWT_REVOKED
    issuer: str
    jti: str
    expires: str  # RFC 3339; from then on it is refused anyway


class ConfigLoaded(Details, frozen=True):
    event: ClassVar = Event.CONFIG_LOADED
    sha256: str  # of the configuration that holds, defaults included
    models: tuple[str, ...]


class ConfigReloaded(Details, frozen=True):
    event: ClassVar = Event.CONFIG_RELOADED
    sha256: str
    changed: tuple[str, ...]  # keys, without their values
    workers: tuple[str, ...]  # that are replaced


class ConfigRejected(Details, frozen=True):
    event: ClassVar = Event.CONFIG_REJECTED
    problem: str


class ModelAdded(Details, frozen=True):
    event: ClassVar = Event.MODEL_ADDED
    model: str
    ref: str
    bytes: int
    sha256: str


class ModelVerified(Details, frozen=True):
    event: ClassVar = Event.MODEL_VERIFIED
    model: str
    sha256: str
    signer: str | None


class ModelRejected(Details, frozen=True):
    event: ClassVar = Event.MODEL_REJECTED
    model: str
    reason: str
    expected_sha256: str | None
    found_sha256: str | None


class ModelRemoved(Details, frozen=True):
    event: ClassVar = Event.MODEL_REMOVED
    model: str
    reason: str


class RequestStart(Details, frozen=True):
    event: ClassVar = Event.REQUEST_START
    route: str
    model: str
    stream: bool
    choices: int
    prompt_bytes: int  # of what was asked, as JSON
    prompt_sha256: str  # of the same


class RequestEnd(Details, frozen=True):
    event: ClassVar = Event.REQUEST_END
    route: str
    model: str
    code: str  # of docs/errors.md, or "ok", "client_gone", "shut_down"
    prompt_tokens: int
    completion_tokens: int
    duration_ms: int


class SupervisorStart(Details, frozen=True):
    event: ClassVar = Event.SUPERVISOR_START
    pid: int
    version: str
    url: str


class SupervisorStop(Details, frozen=True):
    event: ClassVar = Event.SUPERVISOR_STOP
    pid: int
    exit_code: int
    uptime_ms: int


class LimitExceeded(Details, frozen=True):
    event: ClassVar = Event.LIMIT_EXCEEDED
    limit: str  # "requests_per_minute", "memory_bytes_max", …
    subject: str  # a key's id, an address or a worker
    allowed: int
    found: int | None


class AuditRotated(Details, frozen=True):
    """The first entry of a new file."""

    event: ClassVar = Event.AUDIT_ROTATED
    before: str  # the name of the file before
    reason: str  # "size", "age", "disk_low"


class AuditRepaired(Details, frozen=True):
    """A line that a crash had torn was taken away. It had been acknowledged to nobody."""

    event: ClassVar = Event.AUDIT_REPAIRED
    file: str
    torn_bytes: int
    torn_sha256: str
    torn_text: str  # its begin


class AuditDamaged(Details, frozen=True):
    """The log was not as it had been left. The chain goes on; `rbee audit verify` shows where."""

    event: ClassVar = Event.AUDIT_DAMAGED
    reason: str
    found_seq: int  # of the last good entry; 0: none
    expected_seq: int


class AuditGap(Details, frozen=True):
    """Events that found no room while the log could not be written."""

    event: ClassVar = Event.AUDIT_GAP
    lost: int
    reason: str


class AuditRekeyed(Details, frozen=True):
    """From the next entry on another secret seals. Sealed with that of before, where it is known;
    else, after a start, with the one that it names.
    """

    event: ClassVar = Event.AUDIT_REKEYED
    key: str | None  # the id of the key that seals from here on; None: nothing is sealed
    before: str | None  # of that before; None: it is not known, or there was none


KINDS: tuple[type[Details], ...] = tuple(Details.__subclasses__())
