"""Chat answers in OpenAI's form: chunks of a stream, and whole answers.

Rule: a token costs one small string encoded, not an object: what is the same in all chunks of
      a choice is encoded once.
"""

from collections.abc import Sequence

import msgspec

from rbee.ask import TokenLogprob
from rbee.supervisor.api.events import event, one_line
from rbee.supervisor.api.order import Order
from rbee.supervisor.api.probabilities import finite
from rbee.supervisor.api.shape import Choice, Usage
from rbee.wire import Delta


class ChatShape:
    """The form of one chat answer.

    Args:
      answer_id: "chatcmpl-…".
      created_s: Unix time.
    """

    __slots__ = (
        "_begun", "_has_logprobs", "_head", "_openings", "_plain_end", "_tail", "_text_end",
    )  # fmt: skip

    def __init__(self, answer_id: str, created_s: int, order: Order) -> None:
        self._head = {"id": answer_id, "created": created_s, "model": order.model}
        self._has_logprobs = order.has_logprobs
        chunk = one_line({**self._head, "object": "chat.completion.chunk"})[:-1]
        tail = b'],"usage":null}\n\n' if order.include_usage else b"]}\n\n"
        self._begun = [False] * len(order.asks)
        self._openings = [
            b'data: %b,"choices":[{"index":%d,"delta":' % (chunk, index)
            for index in range(len(order.asks))
        ]
        self._text_end = b'},"logprobs":null,"finish_reason":null}' + tail
        self._plain_end = b',"logprobs":null,"finish_reason":null}' + tail
        self._tail = tail

    def chunk(self, index: int, delta: Delta) -> bytes:
        opening = self._openings[index]
        if delta.logprobs and self._has_logprobs:
            told = b'%b{"content":%b},"logprobs":%b,"finish_reason":null}%b' % (
                opening, one_line(delta.text), one_line(_logprobs(delta.logprobs)), self._tail,
            )  # fmt: skip
        elif delta.text:
            told = opening + b'{"content":' + one_line(delta.text) + self._text_end
        else:
            told = b""
        if not self._begun[index]:
            self._begun[index] = True
            told = opening + b'{"role":"assistant","content":""}' + self._plain_end + told
        if delta.finish is not None:
            told += b'%b{},"logprobs":null,"finish_reason":"%b"}%b' % (
                opening, delta.finish.encode(), self._tail,
            )  # fmt: skip
        return told

    def usage_chunk(self, usage: Usage) -> bytes:
        return event(
            {
                **self._head,
                "object": "chat.completion.chunk",
                "choices": [],
                "usage": usage.as_object(),
            }
        )

    def answer(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        return msgspec.json.encode(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [self._choice(*each) for each in enumerate(choices)],
                "usage": usage.as_object(),
            }
        )

    def _choice(self, index: int, choice: Choice) -> dict[str, object]:
        return {
            "index": index,
            "message": {
                "role": "assistant",
                "content": "".join(choice.texts),
                "refusal": None,
            },
            "logprobs": _logprobs(choice.logprobs) if self._has_logprobs else None,
            "finish_reason": choice.finish,
        }


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, object]:
    return {
        "content": [
            {
                **_token(each.piece, each.logprob),
                "top_logprobs": [_token(piece, logprob) for _, piece, logprob in each.top],
            }
            for each in tokens
        ],
        "refusal": None,
    }


def _token(piece: bytes, logprob: float) -> dict[str, object]:
    return {
        "token": piece.decode("utf-8", "replace"),
        "logprob": finite(logprob),
        "bytes": list(piece),
    }
