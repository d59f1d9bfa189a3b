"""The official `openai` client, unchanged, against the running server."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import trio

from tests.e2e.server import Server, serving

MESSAGES = [{"role": "user", "content": "What is 2 plus 3?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("openai")
    with serving(directory, '[[model]]\nref = "bee-tiny"\n') as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["bee-tiny"]
    assert client.models.retrieve("bee-tiny").id == "bee-tiny"


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="bee-tiny", messages=MESSAGES, temperature=0)
    assert "5" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_is_the_same_text(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="bee-tiny", messages=MESSAGES, temperature=0)
    stream = client.chat.completions.create(
        model="bee-tiny",
        messages=MESSAGES,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_a_completion_is_answered_streaming_and_not(client: openai.OpenAI) -> None:
    options = {"model": "bee-tiny", "prompt": "The bee", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**options)
    parts = [chunk.choices[0].text for chunk in client.completions.create(**options, stream=True)]
    assert "".join(parts) == whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    assert whole.choices[0].finish_reason == "length"


def test_logprobs_come_with_the_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="bee-tiny", messages=MESSAGES, temperature=0, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    assert "".join(token.token for token in content) == answer.choices[0].message.content
    for token in content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob, abs=1e-4)


def test_a_schema_is_kept_to(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="bee-tiny",
        messages=[{"role": "user", "content": "Give me a JSON object with name Ann and age 7."}],
        temperature=0,
        max_tokens=80,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": schema},
        },
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    texts = {
        client.chat.completions.create(
            model="bee-tiny", messages=MESSAGES, temperature=1.5, seed=7, max_tokens=30
        )
        .choices[0]
        .message.content
        for _ in range(3)
    }
    assert len(texts) == 1


def test_several_choices_differ_by_their_seed(client: openai.OpenAI) -> None:
    story = [{"role": "user", "content": "Tell me a short story about a bee."}]
    answer = client.chat.completions.create(
        model="bee-tiny", messages=story, n=3, temperature=1.2, seed=1, max_tokens=40
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_logit_bias_bans_a_token(client: openai.OpenAI) -> None:
    ask = {"model": "bee-tiny", "prompt": "The", "max_tokens": 1, "temperature": 0, "logprobs": 0}
    first = client.completions.create(**ask)
    assert first.choices[0].logprobs is not None
    everything = {str(token_id): -100 for token_id in range(1000)}
    banned = client.completions.create(**ask, logit_bias=everything)
    assert banned.choices[0].finish_reason in ("length", "stop")


def test_what_overflows_the_context_is_a_bad_request(client: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "bee " * 5000}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="bee-tiny", messages=long)
    assert refused.value.code == "context_length_exceeded"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="nobody", messages=MESSAGES)
    assert refused.value.code == "model_not_found"


async def test_the_async_clients_answers_are_the_sync_ones(server: Server) -> None:
    # openai's async client runs on asyncio alone: it gets a thread with a loop of its own.
    def ask() -> str | None:
        async def main() -> str | None:
            async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
                stream = await client.chat.completions.create(
                    model="bee-tiny", messages=MESSAGES, temperature=0, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

        return asyncio.run(main())

    assert "5" in (await trio.to_thread.run_sync(ask) or "")
