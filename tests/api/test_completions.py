"""``POST /v1/completions``: what comes back, streamed and whole."""

import trio
from openai.types import Completion

from rbee.ask import TokenLogprob
from tests.api.face import COMPLETION, Face

PATH = "/v1/completions"

HALVES = (
    TokenLogprob(1, b" 4", -0.25, ((1, b" 4", -0.25), (2, b" 5", -2.0))),
    TokenLogprob(3, b"\xe2\x82", -0.5, ((3, b"\xe2\x82", -0.5), (4, b"\xe2\x81", -1.0))),
    TokenLogprob(5, b"\xac", -0.125, ((5, b"\xac", -0.125),)),
    TokenLogprob(6, b"!", -0.0625, ((6, b"!", -0.0625),)),
)


async def test_an_answer_is_openais_and_its_usage_counts() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, COMPLETION)
        [asked] = await face.generator.wait_asked()
        asked.push(" 4", finish="stop")
    answer = Completion.model_validate(exchange.json, strict=True)
    assert answer.id.startswith("cmpl-")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (" 4", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 1)


async def test_each_prompt_has_its_choices_in_a_row_and_counts_once() -> None:
    face = Face()
    body = {**COMPLETION, "prompt": ["one", "two"], "n": 2}
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, body)
        asked = await face.generator.wait_asked(4)
        for number, each in enumerate(asked):
            each.push(f"{each.ask.prompt}{number}", prompt_tokens=3, finish="stop")
    answer = Completion.model_validate(exchange.json, strict=True)
    assert [each.text for each in answer.choices] == ["one0", "one1", "two2", "two3"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 4)


async def test_a_stream_ends_with_finish_usage_and_done() -> None:
    face = Face()
    body = {**COMPLETION, "stream": True, "stream_options": {"include_usage": True}}
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, body)
        [asked] = await face.generator.wait_asked()
        asked.push(" 4")
        asked.push("")
        asked.push("\u2028!", finish="length")
    *chunks, last = exchange.events
    Completion.model_validate(chunks[-1], strict=True)  # the client wants no null there
    assert [each["choices"][0]["text"] for each in chunks] == [" 4", "\u2028!"]
    assert [each["choices"][0]["finish_reason"] for each in chunks] == [None, "length"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert "\u2028" not in exchange.body.decode()


async def test_logprobs_of_halves_of_a_character_keep_their_offsets_and_names() -> None:
    for stream in (False, True):
        face = Face()
        async with trio.open_nursery() as nursery:
            exchange = face.start(nursery, PATH, {**COMPLETION, "logprobs": 2, "stream": stream})
            [asked] = await face.generator.wait_asked()
            for each, text in zip(HALVES, (" 4", "", "€", "!"), strict=True):
                asked.push(text, logprobs=(each,), finish="stop" if text == "!" else None)
        parts = exchange.events if stream else [exchange.json]
        logprobs = [each["choices"][0]["logprobs"] for each in parts]
        joined = {key: [v for each in logprobs for v in each[key]] for key in logprobs[0]}
        assert joined["tokens"] == [" 4", "bytes:\\xe2\\x82", "bytes:\\xac", "!"]
        assert joined["token_logprobs"] == [-0.25, -0.5, -0.125, -0.0625]
        assert joined["text_offset"] == [0, 2, 2, 3]
        assert joined["top_logprobs"][1] == {"bytes:\\xe2\\x82": -0.5, "bytes:\\xe2\\x81": -1.0}


async def test_logprobs_of_0_show_the_chosen_tokens_alone() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**COMPLETION, "logprobs": 0})
        [asked] = await face.generator.wait_asked()
        assert asked.ask.sampling.logprobs == 0
        asked.push(" 4", logprobs=(TokenLogprob(1, b" 4", -0.25),), finish="stop")
    answer = Completion.model_validate(exchange.json, strict=True)
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.tokens == [" 4"]
    assert answer.choices[0].logprobs.top_logprobs is None
