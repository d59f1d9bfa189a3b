"""Plain completions in OpenAI's form: chunks of a stream, and whole answers."""

import codecs
from collections.abc import Sequence

import msgspec

from rbee.ask import TokenLogprob
from rbee.supervisor.api.events import event, one_line
from rbee.supervisor.api.order import Order
from rbee.supervisor.api.probabilities import finite
from rbee.supervisor.api.shape import Choice, Usage
from rbee.wire import Delta


class CompletionShape:
    """The form of one plain completion.

    Args:
      answer_id: "cmpl-…".
      created_s: Unix time.
    """

    __slots__ = (
        "_has_logprobs", "_head", "_offsets", "_openings", "_tail", "_text_end", "_wants_top",
    )  # fmt: skip

    def __init__(self, answer_id: str, created_s: int, order: Order) -> None:
        self._head = {
            "id": answer_id,
            "object": "text_completion",
            "created": created_s,
            "model": order.model,
        }
        self._has_logprobs = order.has_logprobs
        self._wants_top = order.top_logprobs > 0
        self._offsets = [_Offset() for _ in order.asks]
        self._tail = b'],"usage":null}\n\n' if order.include_usage else b"]}\n\n"
        self._openings = [
            b'data: %b,"choices":[{"index":%d,"text":' % (one_line(self._head)[:-1], index)
            for index in range(len(order.asks))
        ]
        self._text_end = b',"logprobs":null,"finish_reason":null}' + self._tail

    def chunk(self, index: int, delta: Delta) -> bytes:
        has_logprobs = self._has_logprobs and bool(delta.logprobs)
        if delta.finish is None and not has_logprobs:
            if not delta.text:
                return b""
            return self._openings[index] + one_line(delta.text) + self._text_end
        logprobs = self._logprobs(delta.logprobs, self._offsets[index]) if has_logprobs else None
        return b'%b%b,"logprobs":%b,"finish_reason":%b}%b' % (
            self._openings[index],
            one_line(delta.text),
            one_line(logprobs),
            one_line(delta.finish),
            self._tail,
        )

    def usage_chunk(self, usage: Usage) -> bytes:
        return event({**self._head, "choices": [], "usage": usage.as_object()})

    def answer(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        return msgspec.json.encode(
            {
                **self._head,
                "choices": [self._choice(*each) for each in enumerate(choices)],
                "usage": usage.as_object(),
            }
        )

    def _choice(self, index: int, choice: Choice) -> dict[str, object]:
        has_logprobs = self._has_logprobs
        return {
            "index": index,
            "text": "".join(choice.texts),
            "logprobs": self._logprobs(choice.logprobs, _Offset()) if has_logprobs else None,
            "finish_reason": choice.finish,
        }

    def _logprobs(self, tokens: Sequence[TokenLogprob], offset: "_Offset") -> dict[str, object]:
        top = [{_name(p): finite(logprob) for _, p, logprob in each.top} for each in tokens]
        return {
            "tokens": [_name(each.piece) for each in tokens],
            "token_logprobs": [finite(each.logprob) for each in tokens],
            "top_logprobs": top if self._wants_top else None,
            "text_offset": [offset.pass_over(each.piece) for each in tokens],
        }


class _Offset:
    """Where in the text the next token begins, counted in characters."""

    def __init__(self) -> None:
        self._characters = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def pass_over(self, piece: bytes) -> int:
        """The offset of this token, before going on to the next."""
        begin = self._characters
        self._characters += len(self._decoder.decode(piece))
        return begin


def _name(piece: bytes) -> str:
    """A token as text; as escaped bytes where it is half a character, so that names differ."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
