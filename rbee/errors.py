"""What can go wrong in rbee, and whose fault it is.

Rule 1: an error names the thing, what was expected and what was found. It never holds a
        prompt, a token's text or a secret.
Rule 2: an error that may reach a client is a `RequestError` with a code from `ErrorCode`.
        HTTP statuses are not known here; `supervisor/api/problems.py` has the one table.
Rule 3: our own bugs are assertions, not errors of this file.
"""

import enum


class RbeeError(Exception):
    """Base of all errors that rbee raises on purpose."""


class ConfigError(RbeeError):
    """The operator's configuration cannot be used. The message says how to mend it."""


class BindError(RbeeError):
    """The address to serve on cannot be had."""


class RunDirError(RbeeError):
    """The run directory cannot be used safely: foreign, open to others, or taken."""


class AuditError(RbeeError):
    """The audit log cannot be read; or cannot be written, so that what concerns security must
    not be done.
    """


class StoreError(RbeeError):
    """The store cannot be used now: locked, not ours, the disk. Another try may succeed."""


class StoreUnmadeError(StoreError):
    """There is no store yet, and may be soon: the disk is full or fails, or another makes it."""


class StoreCorruptError(StoreError):
    """The store is broken, or none of ours. No try will succeed."""


class KeysFullError(StoreError):
    """There are as many keys as there may be."""


class SystemRefusedError(RbeeError):
    """The system refuses what a supervisor cannot do without: a thread, a descriptor."""


class LocalProtocolError(RbeeError):
    """Our own end of a link tried to say what may not be said now."""


class RemoteProtocolError(RbeeError):
    """The other end of a link said something that is no message, or not one for now."""


class LinkFullError(RbeeError):
    """The other end of a link does not take messages: its queue is full."""


class EngineError(RbeeError):
    """An engine cannot be loaded, or cannot go on.

    Args:
      message: for the operator: what was expected and what was found.
      exit_code: the code that the worker process ends with; see `ExitCode`.
    """

    def __init__(self, message: str, exit_code: "ExitCode") -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ExitCode(enum.IntEnum):
    """How rbee processes end (sysexits where one fits). Documented in docs/exit-codes.md."""

    OK = 0
    USAGE = 64  # wrong command line
    DATA = 65  # a worker: the model's files are broken or of a kind its engine cannot read
    UNAVAILABLE = 69  # no slot can ever be ready
    SOFTWARE = 70  # a bug in rbee
    OS_ERROR = 71  # the system refuses a thread, a descriptor, memory; or to end a process
    CANT_CREATE = 73  # run directory or socket cannot be made
    PROTOCOL = 76  # a worker: the supervisor spoke another version, or out of turn
    NO_PERMISSION = 77
    CONFIG = 78  # bad configuration; a restart cannot help
    OUT_OF_MEMORY = 80  # a worker: model and cache do not fit, in RAM or VRAM
    ENGINE_FATAL = 81  # a worker: the engine cannot go on in this process (CUDA error, llama.cpp)
    ORPHANED = 82  # a worker: the supervisor is gone


class ErrorCode(enum.StrEnum):
    """Every code that a client can meet in ``error.code``. Documented in docs/errors.md."""

    INVALID_REQUEST = "invalid_request"
    INVALID_JSON = "invalid_json"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    INVALID_API_KEY = "invalid_api_key"
    AUTHENTICATION_THROTTLED = "authentication_throttled"
    PERMISSION_DENIED = "permission_denied"
    FORBIDDEN_HOST = "forbidden_host"
    FORBIDDEN_ORIGIN = "forbidden_origin"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    WORKER_NOT_FOUND = "worker_not_found"
    KEY_NOT_FOUND = "key_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    REQUEST_QUARANTINED = "request_quarantined"
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    MODEL_UNAVAILABLE = "model_unavailable"
    DRAINING = "draining"
    WORKER_FAILED = "worker_failed"
    ENGINE_FAILED = "engine_failed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    SLOW_CLIENT = "slow_client"
    STORE_UNAVAILABLE = "store_unavailable"
    JWT_UNAVAILABLE = "jwt_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    INTERNAL_ERROR = "internal_error"


class Violation:
    """One field of a request that is not as it must be. Never holds the value."""

    __slots__ = ("field", "problem")

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem

    def __repr__(self) -> str:
        return f"Violation({self.field!r}, {self.problem!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Violation) and (self.field, self.problem) == (
            other.field,
            other.problem,
        )

    def __hash__(self) -> int:
        return hash((self.field, self.problem))


class RequestError(RbeeError):
    """One request cannot be answered. Reaches the client in the one error shape.

    Args:
      code: from the catalogue.
      message: for the author of the client; no path, address, host name, prompt or secret.
      param: the field of the request body at fault, if one is.
      details: all violations at once, where there are several.
      retry_after_s: after how many seconds another try may succeed, where one may.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        param: str | None = None,
        details: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.details = details
        self.retry_after_s = retry_after_s


def model_not_found() -> RequestError:
    """No model of that name, or none that this client may know of: it cannot tell which."""
    message = "there is no such model here; GET /v1/models lists those that are"
    return RequestError(ErrorCode.MODEL_NOT_FOUND, message, param="model")


def request_quarantined() -> RequestError:
    return RequestError(
        ErrorCode.REQUEST_QUARANTINED,
        "this request has crashed its worker more than once; it is not worked on for some time",
    )


def model_unavailable(model: str, trial_in_s: float | None = None) -> RequestError:
    """No worker serves it, but that one may be tried by itself, after ``trial_in_s``."""
    if trial_in_s is None:
        hope, retry_after_s = "none will until an operator acts", 60.0
    else:
        hope, retry_after_s = f"one is tried in {trial_in_s:.0f} s", max(1.0, trial_in_s)
    message = f"no worker serves the model {model!r}, and {hope}"
    return RequestError(ErrorCode.MODEL_UNAVAILABLE, message, retry_after_s=retry_after_s)


def worker_failed(workers: int) -> RequestError:
    """So many workers have ended on it, one after the other."""
    message = f"{workers} workers in a row ended on this request without bringing a token"
    return RequestError(ErrorCode.WORKER_FAILED, message, retry_after_s=2.0)
