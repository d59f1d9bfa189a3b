"""What comes back from the server, as Python has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from rbee.client.errors import AnswerError, BadAnswerError
from rbee.local_wire import Head

_ERROR_MIN: Final = 400
_DATA: Final = b"data: "
_DONE: Final = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Response:
    """Any answer: its status, its headers by their names in lower case, and what it says."""

    status: int
    fields: dict[str, str]
    value: Any  # what its JSON says; the text, where it is none; None, where it is empty

    @property
    def correlation_id(self) -> str:
        return self.fields.get("x-correlation-id", "")


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. Of several choices, ``text`` and ``finish_reason`` are the first one's."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    correlation_id: str
    raw: dict[str, Any]  # all that the server said, in OpenAI's form


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer that is streamed."""

    text: str
    finish_reason: str | None  # set in the last one of its choice
    index: int  # of the choice
    raw: dict[str, Any]  # the chunk, in OpenAI's form


def as_response(head: Head, body: bytes) -> Response:
    value: Any = None
    if body:
        is_json = head.fields.get("content-type", "").startswith("application/json")
        value = _json(body) if is_json else body.decode("utf-8", "replace")
    return Response(head.status, head.fields, value)


def checked(response: Response) -> Response:
    """Raises: AnswerError: it tells of an error."""
    if response.status >= _ERROR_MIN:
        raise _as_error(response.value, response.status, response.fields)
    return response


def member(response: Response, name: str) -> Any:  # noqa: ANN401  # whatever it holds
    """A member of what an answer says. Raises: AnswerError; BadAnswerError: there is none."""
    if isinstance(response.value, dict) and name in response.value:
        return response.value[name]
    checked(response)
    raise BadAnswerError(f"expected an answer with the member {name!r}")


def as_completion(response: Response) -> Completion:
    """What an answer of one of the generating routes says. Raises: AnswerError."""
    value = checked(response).value
    try:
        choice, usage = value["choices"][0], value["usage"]
        return Completion(
            _text_of(choice, "message"), choice["finish_reason"],
            usage["prompt_tokens"], usage["completion_tokens"], response.correlation_id, value,
        )  # fmt: skip
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadAnswerError("the answer is none to a request for tokens") from error


def read_events(payload: bytes, head: Head) -> Iterator[Delta | AnswerError]:
    """What a part of a stream tells: deltas, or that it cannot go on. Raises: BadAnswerError."""
    for event in payload.split(b"\n\n"):
        if not event.startswith(_DATA) or event == _DATA + _DONE:
            continue  # a comment, or the end
        chunk = _json(event.removeprefix(_DATA))
        if isinstance(chunk, dict) and "error" in chunk:
            yield _as_error(chunk, head.status, head.fields)
            return
        try:
            deltas = [_as_delta(choice, chunk) for choice in chunk["choices"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise BadAnswerError("an event is none of a stream of tokens") from error
        yield from (each for each in deltas if each.text or each.finish_reason is not None)


def _as_delta(choice: dict[str, Any], chunk: dict[str, Any]) -> Delta:
    return Delta(_text_of(choice, "delta"), choice["finish_reason"], choice["index"], chunk)


def _text_of(choice: dict[str, Any], member: str) -> str:
    """Of a chat's choice, or of a plain completion's."""
    found = choice[member].get("content") if member in choice else choice["text"]
    return str(found or "")


def _json(raw: bytes) -> Any:  # noqa: ANN401  # whatever it holds
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswerError("the server sent what is not JSON") from error


def _as_error(value: Any, status: int, fields: dict[str, str]) -> AnswerError:  # noqa: ANN401
    told = value.get("error") if isinstance(value, dict) else None
    told = told if isinstance(told, dict) else {}
    retry_after = fields.get("retry-after", "")
    return AnswerError(
        str(told.get("message", f"the server answered with status {status}")),
        code=str(told.get("code", "unknown")),
        status=status,
        correlation_id=str(told.get("correlation_id", "")),
        param=told.get("param"),
        details=tuple(told.get("details") or ()),
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
    )
