"""The counting workers behind mosec: streams by server-sent events, or short answers.

Its settings come by the environment, which mosec hands on to the worker processes:
`COUNT_TOKENS_PER_S`, `COUNT_WORKERS`, `COUNT_BATCH`, `COUNT_STREAM` (1 or 0), `COUNT_WAIT_MS`.
"""

import os
import time
from typing import Any

import msgspec
from mosec import Server, SSEWorker, Worker

ROUTE = "/v1/chat/completions"
TOKENS_PER_S = float(os.environ["COUNT_TOKENS_PER_S"])
CATCH_UP_S = 1.0  # as rbee's and the baseline's workers: a delay is caught up, to this limit


class _Body(msgspec.Struct):
    model: str
    max_tokens: int = 16


_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


class CountingStreams(SSEWorker):  # type: ignore[misc]
    """One batch of streams, token by token, at a steady pace."""

    def deserialize(self, data: bytes) -> _Body:
        return _decoder.decode(data)

    def forward(self, data: list[_Body]) -> list[dict[str, Any]]:
        period_s = 1 / TOKENS_PER_S
        tick_s, created, number = time.monotonic(), int(time.time()), 0
        heads = [_head(index, created, body.model) for index, body in enumerate(data)]
        for index, head in enumerate(heads):
            self._send(index, head, {"role": "assistant", "content": ""}, None)
        while any(body.max_tokens > number for body in data):
            time.sleep(max(0.0, tick_s - time.monotonic()))
            tick_s = max(tick_s + period_s, time.monotonic() - CATCH_UP_S)
            for index, body in enumerate(data):
                if number < body.max_tokens:
                    self._send(index, heads[index], {"content": f"{number} "}, None)
                if number + 1 == body.max_tokens:
                    self._send(index, heads[index], {}, "length")
                    self.send_stream_event("[DONE]", index)
            number += 1
        return [{} for _ in data]

    def _send(
        self, index: int, head: dict[str, Any], delta: dict[str, str], finish: str | None
    ) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        self.send_stream_event(_encoder.encode(head | {"choices": [choice]}).decode(), index)


class CountingAnswers(Worker):  # type: ignore[misc]
    """One batch of short answers, in as many steps as the longest of them has tokens."""

    def deserialize(self, data: bytes) -> _Body:
        return _decoder.decode(data)

    def forward(self, data: list[_Body]) -> list[dict[str, Any]]:
        time.sleep(max(body.max_tokens for body in data) / TOKENS_PER_S)
        return [_completion(index, body) for index, body in enumerate(data)]


def _head(index: int, created: int, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{index:032x}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
    }


def _completion(index: int, body: _Body) -> dict[str, Any]:
    text = "".join(f"{number} " for number in range(body.max_tokens))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    told = {"prompt_tokens": 1, "completion_tokens": body.max_tokens,
            "total_tokens": 1 + body.max_tokens}  # fmt: skip
    head = _head(index, int(time.time()), body.model)
    return head | {"object": "chat.completion", "choices": [choice], "usage": told}


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        CountingStreams if os.environ["COUNT_STREAM"] == "1" else CountingAnswers,
        num=int(os.environ["COUNT_WORKERS"]),
        max_batch_size=int(os.environ["COUNT_BATCH"]),
        max_wait_time=int(os.environ["COUNT_WAIT_MS"]),
        route=ROUTE,
    )
    server.run()
