"""The requests of one worker: from an ask to a job, and from sampled tokens to deltas.

Pure: no engine, link or clock. The step loop (`loop.py`) acts on what is decided here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rbee.ask import Ask, FinishReason
from rbee.engine.chat import ChatTemplate
from rbee.engine.engine import EngineInfo, Feature, Job, Sampled, Tokenizer
from rbee.engine.text import TextStream
from rbee.errors import ErrorCode, RequestError
from rbee.wire import Delta, Generate


@dataclass(slots=True)
class Running:
    """A request that the engine works on."""

    request_id: int
    correlation_id: str
    deadline_s: float
    started_s: float
    text: TextStream
    prompt_tokens: int
    tokens: int  # of the answer, those included that an earlier worker delivered
    has_told_prompt: bool = False


class Admission:
    """Turns asks into jobs for one loaded model.

    Args:
      is_cache_shared: whether all requests share what the engine keeps, whosever they are.
    """

    def __init__(
        self, info: EngineInfo, tokenizer: Tokenizer, *, is_cache_shared: bool = False
    ) -> None:
        self._info = info
        self._is_cache_shared = is_cache_shared
        self._tokenizer = tokenizer
        self._template: Final = (
            ChatTemplate(tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)
            if tokenizer.chat_template is not None
            else None
        )

    def pieces(self, token_ids: Iterable[int]) -> Iterator[bytes]:
        """The bytes of each token."""
        return map(self._tokenizer.piece, token_ids)

    def job(self, message: Generate) -> Job:
        """The job that answers ``message``.

        Raises:
          RequestError: this model cannot: too long, no chat template, a feature is missing.
        """
        ask = message.ask
        self._check_features(ask)
        prompt_ids = self._prompt_ids(ask)
        resumed = message.resume_ids
        tokens_max = self._tokens_max(ask, len(prompt_ids))
        return Job(
            job_id=message.request_id,
            prompt_ids=(*prompt_ids, *resumed),
            tokens_max=max(1, tokens_max - len(resumed)),
            sampling=ask.sampling,
            json_schema=ask.json_schema,
            resumed=len(resumed),
            cache_salt=b"" if self._is_cache_shared else message.cache_salt,
        )

    def _check_features(self, ask: Ask) -> None:
        wanted = {
            "logprobs": (Feature.LOGPROBS, ask.sampling.logprobs is not None),
            "logit_bias": (Feature.LOGIT_BIAS, bool(ask.sampling.logit_bias)),
            "response_format": (Feature.JSON_SCHEMA, ask.json_schema is not None),
            "messages": (Feature.CHAT, bool(ask.messages)),
        }
        for param, (feature, is_wanted) in wanted.items():
            if is_wanted and feature not in self._info.features:
                raise RequestError(
                    ErrorCode.UNSUPPORTED_PARAMETER,
                    f"the engine {self._info.engine} cannot do {feature.value} with this model",
                    param=param,
                )
        out_of_range = [i for i in ask.sampling.logit_bias if i >= self._tokenizer.vocabulary_size]
        if out_of_range:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"logit_bias names token ids that the model does not have: it has"
                f" {self._tokenizer.vocabulary_size}",
                param="logit_bias",
            )

    def _prompt_ids(self, ask: Ask) -> list[int]:
        if ask.messages:
            assert self._template is not None, "Feature.CHAT is there without a template"
            text = self._template.render(ask.messages)
            ids = self._tokenizer.encode(text, special=True, bos=False)
        elif ask.prompt_ids is not None:
            ids = list(ask.prompt_ids)
            if any(not 0 <= i < self._tokenizer.vocabulary_size for i in ids):
                raise RequestError(
                    ErrorCode.INVALID_REQUEST,
                    "prompt holds token ids that the model does not have: it has"
                    f" {self._tokenizer.vocabulary_size}",
                    param="prompt",
                )
        else:
            ids = self._tokenizer.encode(ask.prompt or "", special=False, bos=True)
        if not ids:
            raise RequestError(ErrorCode.INVALID_REQUEST, "prompt has no tokens", param="prompt")
        return ids

    def _tokens_max(self, ask: Ask, prompt_tokens: int) -> int:
        context_length = self._info.context_length
        wanted = ask.tokens_max or 1
        if prompt_tokens + wanted > context_length:
            raise RequestError(
                ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                f"this model's context length is {context_length} tokens; the prompt has"
                f" {prompt_tokens} and {wanted} more are asked for",
                param="messages" if ask.messages else "prompt",
            )
        return ask.tokens_max or context_length - prompt_tokens


def start(message: Generate, job: Job, now_s: float, resumed: Iterable[bytes]) -> Running:
    """The record of a job that the engine took.

    Args:
      resumed: the pieces of the tokens that an earlier worker delivered. They are not sent
        again, but half a character or half a stop string may end in what comes now.
    """
    text = TextStream(message.ask.stop)
    for piece in resumed:
        text.feed(piece)
    return Running(
        request_id=message.request_id,
        correlation_id=message.correlation_id,
        deadline_s=now_s + message.remaining_ms / 1000,
        started_s=now_s,
        text=text,
        prompt_tokens=len(job.prompt_ids) - job.resumed,
        tokens=job.resumed,
    )


def take(running: Running, sampled: Sampled) -> Delta | None:
    """Turn what a step brought into what the client gets.

    Returns:
      The delta, None if there is nothing to say yet. Its ``finish`` is set when the engine
      has finished, or when a stop string came: then the caller cancels the job.
    """
    parts: list[str] = []
    used = 0
    for piece in sampled.pieces:
        parts.append(running.text.feed(piece))
        used += 1
        if running.text.is_stopped:
            break
    finish: FinishReason | None = sampled.finish
    if finish is not None and not running.text.is_stopped:
        parts.append(running.text.flush())  # may still complete a stop string
    if running.text.is_stopped:
        finish = "stop"
    if used == 0 and finish is None:
        return None
    delta = Delta(
        request_id=running.request_id,
        index=running.tokens,
        token_ids=tuple(sampled.token_ids[:used]),
        text="".join(parts),
        finish=finish,
        prompt_tokens=0 if running.has_told_prompt else running.prompt_tokens,
        logprobs=tuple(sampled.logprobs[:used]),
    )
    running.tokens += used
    running.has_told_prompt = True
    return delta
