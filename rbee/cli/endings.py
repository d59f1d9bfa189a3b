"""How a command ends: the errors that only the command line knows, and every exit code."""

from typing import Final

from rbee.errors import (
    AuditError,
    BindError,
    ConfigError,
    EngineError,
    ErrorCode,
    ExitCode,
    RbeeError,
    RunDirError,
    StoreError,
    SystemRefusedError,
)

# Beside `ExitCode`, which is for processes that fail: answers, and what every program has.
NOT_WELL: Final = 1  # status: not ready; doctor: something failed
IO_ERROR: Final = 74  # the output cannot be written (sysexits)
INTERRUPTED: Final = 130  # Ctrl-C: 128 + SIGINT
BROKEN_PIPE: Final = 141  # the reader of our output went away: 128 + SIGPIPE


class UsageError(RbeeError):
    """The command line says what cannot be done. The message says what can."""


class UnreachableError(RbeeError):
    """No rbee server answers, or it stopped answering in the middle."""


class OutputError(RbeeError):
    """What the command prints cannot be written: a full disk."""


class ReaderGoneError(RbeeError):
    """Who read our output has gone, as ``| head`` does. Nothing to say, and nobody to hear it."""


class RefusedError(RbeeError):
    """The server answered with an error.

    Args:
      message: in the server's words.
      code: of the error, from the server's catalogue; "" when it named none.
      correlation_id: under which the server logged it; "" when it named none.
    """

    def __init__(self, message: str, code: str, correlation_id: str) -> None:
        told = f"{code}: {message}" if code else message
        super().__init__(f"{told} (correlation id {correlation_id})" if correlation_id else told)
        self.code = code


# Refusals that are nobody's mistake, and may be gone on another try.
_PASSING: Final = frozenset(
    {
        ErrorCode.AUTHENTICATION_THROTTLED,
        ErrorCode.QUEUE_FULL,
        ErrorCode.RATE_LIMITED,
        ErrorCode.MODEL_UNAVAILABLE,
        ErrorCode.DRAINING,
        ErrorCode.WORKER_FAILED,
        ErrorCode.ENGINE_FAILED,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.CANCELLED,
        ErrorCode.SLOW_CLIENT,
        ErrorCode.BODY_TIMEOUT,
        ErrorCode.STORE_UNAVAILABLE,
        ErrorCode.JWT_UNAVAILABLE,
        ErrorCode.AUDIT_UNAVAILABLE,
        ErrorCode.INTERNAL_ERROR,
    }
)
_FORBIDDEN: Final = frozenset(
    {
        ErrorCode.INVALID_API_KEY,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.FORBIDDEN_HOST,
        ErrorCode.FORBIDDEN_ORIGIN,
    }
)
_KNOWN: Final = frozenset(code.value for code in ErrorCode)


_CODES: Final[tuple[tuple[type[RbeeError], int], ...]] = (
    (UsageError, ExitCode.USAGE),
    (ConfigError, ExitCode.CONFIG),
    (BindError, ExitCode.UNAVAILABLE),
    (UnreachableError, ExitCode.UNAVAILABLE),
    (RunDirError, ExitCode.CANT_CREATE),
    (SystemRefusedError, ExitCode.OS_ERROR),
    (OutputError, IO_ERROR),
    (AuditError, IO_ERROR),
    (StoreError, IO_ERROR),
    (ReaderGoneError, BROKEN_PIPE),
)


def exit_code_of(error: RbeeError) -> int:
    """Which code a process ends with when this error reached its top."""
    if isinstance(error, EngineError):
        return error.exit_code
    if isinstance(error, RefusedError):
        return _exit_code_of_refusal(error.code)
    codes = (code for kind, code in _CODES if isinstance(error, kind))
    return next(codes, ExitCode.SOFTWARE)


def _exit_code_of_refusal(code: str) -> ExitCode:
    if code in _FORBIDDEN:
        return ExitCode.NO_PERMISSION
    if code in _PASSING or code not in _KNOWN:
        return ExitCode.UNAVAILABLE
    return ExitCode.USAGE
