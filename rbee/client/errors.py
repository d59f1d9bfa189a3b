"""What can go wrong for a local client."""

from typing import Any

from rbee.errors import RbeeError


class ClientError(RbeeError):
    """Base of all that a client raises on purpose."""


class BadRequestError(ClientError, ValueError):
    """What is asked cannot be said to a server, such as NaN in a body: nothing was sent."""


class ServerGoneError(ClientError):
    """No server is there, or it ended the connection before the answer was whole."""


class ForeignServerError(ClientError):
    """Another user may have made the run directory: it would get the key and the prompts."""


class TimedOutError(ClientError):
    """Nothing came within the time that the request had, not even the server's own refusal."""


class BadAnswerError(ClientError):
    """The server said what is no message of the local protocol: it is another version."""


class AnswerError(ClientError):
    """The server refused the request, or could not complete its answer.

    Attributes:
      code: which of the errors of docs/errors.md it is.
      status: the HTTP status; of an answer that failed after it had begun, 200.
      correlation_id: by which the server's log knows the request.
      param: the field at fault; None where it is no field's.
      details: each field at fault with its problem.
      retry_after_s: when another try makes sense; None where none does.
    """

    def __init__(  # noqa: PLR0913  # all that the server tells
        self,
        message: str,
        *,
        code: str,
        status: int,
        correlation_id: str,
        param: str | None = None,
        details: tuple[dict[str, Any], ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.correlation_id = correlation_id
        self.param = param
        self.details = details
        self.retry_after_s = retry_after_s
