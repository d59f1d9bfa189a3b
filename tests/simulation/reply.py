"""How a simulated client is told its answer, and what it makes of it.

`PlainShape` writes an answer so that nothing of it is lost: `CheckedReply` reads each word as it
comes, and knows at once what may not come.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import trio

from rbee.ask import Ask
from rbee.errors import RequestError
from rbee.supervisor.api.events import DONE
from rbee.supervisor.api.shape import Choice, Usage
from rbee.wire import Delta
from tests.simulation.oracle import Script, ask_key, length, tokens, whole_text

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class PlainShape:
    """Implements `Shape`."""

    def chunk(self, index: int, delta: Delta) -> bytes:
        told = [index, list(delta.token_ids), delta.text, delta.finish, delta.prompt_tokens]
        return _encode(told) + b"\n"

    def usage_chunk(self, usage: Usage) -> bytes:
        return _encode(usage.as_object()) + b"\n"

    def answer(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        told = [[each.completion_tokens, "".join(each.texts), each.finish] for each in choices]
        return _encode([told, usage.as_object()])


class CheckedReply:
    """Implements `Reply`; whatever may not come is a violation.

    Args:
      on_write: called at each write, after it was read, with its number; may end the generation.
    """

    def __init__(
        self,
        name: str,
        asks: Sequence[Ask],
        scripts: Sequence[Script],
        violation: Callable[[str], None],
        on_write: Callable[[int], None],
    ) -> None:
        self.over = trio.Event()  # whatever way
        self.error: RequestError | None = None
        self.is_whole = False
        self.usage: dict[str, Any] | None = None
        self.ended_s = 0.0
        self.writes = 0
        self.begun_s: float | None = None
        self.texts = ["" for _ in asks]
        self.counts = [0 for _ in asks]
        self._finishes: list[str | None] = [None for _ in asks]
        self._name = name
        self._keys = [ask_key(ask) for ask in asks]
        self._scripts = scripts
        self._wholes = [length(script, ask) for script, ask in zip(scripts, asks, strict=True)]
        self._prompts_left = [script.prompt_tokens for script in scripts]
        self._violation = violation
        self._on_write = on_write

    @property
    def tokens(self) -> int:
        return sum(self.counts)

    # --- for the generation

    def answer(self, body: bytes) -> None:
        self._expect_open("an answer")
        if self.begun_s is not None:
            self._violation(f"{self._name} gets a whole answer after a stream")
        choices, self.usage = _decode(body)
        for index, (count, text, finish) in enumerate(choices):
            self.counts[index], self.texts[index] = count, text
            self._finishes[index] = finish
        self._end()
        self._check_whole()

    def write(self, payload: bytes) -> None:
        self._expect_open("words")
        if self.begun_s is None:
            self.begun_s = trio.current_time()
        self._read(payload)
        self.writes += 1
        self._on_write(self.writes)

    def end(self, last_words: bytes) -> None:
        self._expect_open("an end")
        if not last_words.endswith(DONE):
            self._violation(f"{self._name} ends without the last words")
        self._read(last_words.removesuffix(DONE))
        self._end()
        self._check_whole()

    def fail(self, error: RequestError) -> None:
        self._expect_open("an error")
        self.error = error
        self._end()

    # --- for the client

    def left(self) -> None:
        """The client has gone: nothing more may come."""
        self._end()

    def _end(self) -> None:
        self.ended_s = trio.current_time()
        self.over.set()

    def _expect_open(self, what: str) -> None:
        if self.over.is_set():
            self._violation(f"{self._name} is over, and gets {what}")

    def _read(self, payload: bytes) -> None:
        for line in payload.splitlines():
            told = _decode(line)
            if isinstance(told, dict):
                self.usage = told
            else:
                self._take(*told)

    def _take(
        self, index: int, token_ids: list[int], text: str, finish: str | None, prompt: int
    ) -> None:
        key, count = self._keys[index], self.counts[index]
        if self._finishes[index] is not None:
            self._violation(f"{self._name} gets more of {key} behind its end")
        if tuple(token_ids) != tokens(key, count, count + len(token_ids)):
            self._violation(f"{self._name} gets wrong tokens at {count} of {key}")
        if prompt not in (0, self._prompts_left[index]):
            self._violation(f"{self._name} is told {prompt} prompt tokens of {key}")
        if prompt:
            self._prompts_left[index] = 0  # it is told them once
        self.counts[index] = count + len(token_ids)
        self.texts[index] += text
        self._finishes[index] = finish

    def _check_whole(self) -> None:
        self.is_whole = True
        for index, key in enumerate(self._keys):
            whole = self._wholes[index]
            if self.counts[index] != whole:
                self._violation(f"{key} has {self.counts[index]} tokens instead of {whole}")
            if self.texts[index] != whole_text(key, whole):
                self._violation(f"{key} has the wrong text")
            if self._finishes[index] != self._scripts[index].finish:
                self._violation(f"{key} ends with {self._finishes[index]}")
