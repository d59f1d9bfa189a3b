"""``POST /v1/chat/completions``: what comes back, streamed and whole."""

import trio
import trio.testing
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rbee.ask import TokenLogprob
from rbee.errors import ErrorCode, RequestError
from tests.api.face import CHAT, NOW_UNIX_S, Face

PATH = "/v1/chat/completions"


async def test_an_answer_is_openais_and_its_usage_counts() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "max_tokens": 5})
        [asked] = await face.generator.wait_asked()
        asked.push("It is ")
        asked.push("4.", tokens=2, finish="length")
    assert exchange.status == 200
    answer = ChatCompletion.model_validate(exchange.json, strict=True)
    assert answer.choices[0].message.content == "It is 4."
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs is None
    assert answer.usage is not None
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 3, 10)
    assert answer.id.startswith("chatcmpl-")
    assert answer.created == int(NOW_UNIX_S)
    assert answer.model == "bee-tiny"
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.headers["cache-control"] == "no-store"


async def test_a_stream_has_role_then_text_then_finish_then_done() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True})
        [asked] = await face.generator.wait_asked()
        asked.push("It")
        asked.push("")  # half a character: nothing to tell yet
        asked.push(" is 4", finish="stop")
    assert exchange.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = [ChatCompletionChunk.model_validate(each, strict=True) for each in exchange.events]
    assert [each.choices[0].delta.role for each in chunks] == ["assistant", None, None, None]
    assert [each.choices[0].delta.content for each in chunks] == ["", "It", " is 4", None]
    assert [each.choices[0].finish_reason for each in chunks] == [None, None, None, "stop"]
    assert len({each.id for each in chunks}) == 1
    assert all("usage" not in each for each in exchange.events)


async def test_usage_comes_in_a_last_chunk_where_it_was_asked_for() -> None:
    face = Face()
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, body)
        [asked] = await face.generator.wait_asked()
        asked.push("4", tokens=3, finish="stop")
    *chunks, last = exchange.events
    assert all(each["usage"] is None for each in chunks)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    ChatCompletionChunk.model_validate(last, strict=True)


async def test_choices_have_an_index_and_a_seed_each_and_share_the_prompt() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "n": 3, "seed": 40})
        asked = await face.generator.wait_asked(3)
        for each in reversed(asked):
            each.push(str(each.ask.sampling.seed), finish="stop")
    answer = ChatCompletion.model_validate(exchange.json, strict=True)
    assert [each.index for each in answer.choices] == [0, 1, 2]
    assert [each.message.content for each in answer.choices] == ["40", "41", "42"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)


async def test_streamed_choices_are_told_as_they_come_by_index() -> None:
    face = Face()
    body = {**CHAT, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, body)
        first, second = await face.generator.wait_asked(2)
        second.push("b")
        first.push("a")
        second.push("B", finish="stop")
        first.push("A", finish="length")
    *chunks, last = exchange.events
    told = [
        (each["choices"][0]["index"], each["choices"][0]["delta"].get("content")) for each in chunks
    ]
    assert told == [
        (1, ""), (1, "b"), (0, ""), (0, "a"), (1, "B"), (1, None), (0, "A"), (0, None),
    ]  # fmt: skip
    assert last["usage"]["prompt_tokens"] == 7
    assert last["usage"]["completion_tokens"] == 4


LOGPROBS = (
    TokenLogprob(5, "ß".encode(), -0.5, ((5, "ß".encode(), -0.5), (6, b"\xc3", -1.5))),
    TokenLogprob(9, b"\xe2\x82", float("-inf"), ()),
)


async def test_logprobs_have_text_and_bytes_and_are_finite() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "logprobs": True, "top_logprobs": 2})
        [asked] = await face.generator.wait_asked()
        assert asked.ask.sampling.logprobs == 2
        asked.push("ß", tokens=2, logprobs=LOGPROBS, finish="stop")
    answer = ChatCompletion.model_validate(exchange.json, strict=True)
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert [each.token for each in content] == ["ß", "�"]
    assert [each.bytes for each in content] == [[0xC3, 0x9F], [0xE2, 0x82]]
    assert [each.logprob for each in content] == [-0.5, -9999.0]
    assert [each.bytes for each in content[0].top_logprobs] == [[0xC3, 0x9F], [0xC3]]


async def test_streamed_logprobs_come_with_their_tokens_even_without_text() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "logprobs": True, "stream": True})
        [asked] = await face.generator.wait_asked()
        asked.push("", logprobs=LOGPROBS[1:])
        asked.push("€", logprobs=LOGPROBS[:1], finish="stop")
    chunks = [ChatCompletionChunk.model_validate(each, strict=True) for each in exchange.events]
    counted = [len(each.choices[0].logprobs.content or []) for each in chunks
               if each.choices[0].logprobs]  # fmt: skip
    assert counted == [1, 1]


async def test_no_text_whatever_breaks_a_line_of_a_stream() -> None:
    face = Face()
    text = 'a\r\nb\n\ndata: [DONE]\n\nc\u2028d\u2029e\x85f\x0b\x0c\x1c\x1d\x1e\x00\\"😀'
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True})
        [asked] = await face.generator.wait_asked()
        asked.push(text, finish="stop")
    assert exchange.events[1]["choices"][0]["delta"]["content"] == text
    assert len(exchange.body.decode().splitlines()) == 2 * 4


async def test_a_request_that_fails_before_its_first_delta_has_the_errors_status() -> None:
    for stream in (False, True):
        face = Face()
        async with trio.open_nursery() as nursery:
            exchange = face.start(nursery, PATH, {**CHAT, "stream": stream, "n": 2})
            first, second = await face.generator.wait_asked(2)
            message = "this model's context length is 16 tokens"
            first.fail(RequestError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, message, param="messages"))
        assert exchange.status == 400
        assert exchange.error["code"] == "context_length_exceeded"
        assert exchange.error["param"] == "messages"
        assert second.cancelled is not None


async def test_a_stream_that_fails_after_it_began_ends_with_one_error_event_and_done() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True, "n": 2})
        first, second = await face.generator.wait_asked(2)
        first.push("a")
        await trio.testing.wait_all_tasks_blocked()
        first.fail(RequestError(ErrorCode.WORKER_FAILED, "the worker ended"))
    assert exchange.status == 200
    assert exchange.events[-1]["error"]["code"] == "worker_failed"
    assert exchange.events[-1]["error"]["correlation_id"] == exchange.headers["x-correlation-id"]
    assert [each for each in exchange.events if "error" in each] == exchange.events[-1:]
    assert second.cancelled == "worker_failed"
    assert face.log.of("request_done")[0]["outcome"] == "worker_failed"


async def test_choices_are_refused_together() -> None:
    face = Face()
    full = RequestError(ErrorCode.QUEUE_FULL, "the queue is full", retry_after_s=2.2)
    face.generator.refusals = [full]
    exchange = await face.post(PATH, {**CHAT, "n": 2})
    assert exchange.status == 429
    assert exchange.headers["retry-after"] == "3"
    assert exchange.error["type"] == "rate_limit_error"
    assert face.generator.asked == []
