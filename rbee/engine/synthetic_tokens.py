"""The synthetic engine's tokens: bytes for prompts, numbers for answers.

    0..255      one byte each
    256         the end of the answer; special
    257..999    not used
    1000 + i    the number i with a blank after it

An answer counts "0 1 2 3 ...", so that a token that is lost or doubled shows.
"""

import re
from typing import Final

END_ID: Final = 256
FIRST_NUMBER_ID: Final = 1000
NUMBERS_MAX: Final = 1 << 24  # the longest context that the configuration takes

_END_TEXT: Final = "<|end|>"
_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
_TOKENS_ASKED: Final = re.compile(rb"\[tokens=([0-9]{1,9})\]")


class SyntheticTokenizer:
    """Implements `rbee.engine.engine.Tokenizer`."""

    chat_template: str | None = _CHAT_TEMPLATE
    bos_token = ""
    eos_token = _END_TEXT

    @property
    def vocabulary_size(self) -> int:
        return FIRST_NUMBER_ID + NUMBERS_MAX

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """The bytes of the text. There is no beginning-of-sequence token to put first."""
        del bos
        if not special or _END_TEXT not in text:
            return list(text.encode())
        ids: list[int] = []
        for number, part in enumerate(text.split(_END_TEXT)):
            if number > 0:
                ids.append(END_ID)
            ids.extend(part.encode())
        return ids

    def piece(self, token_id: int) -> bytes:
        if token_id >= FIRST_NUMBER_ID:
            return b"%d " % (token_id - FIRST_NUMBER_ID)
        return bytes((token_id,)) if token_id < END_ID else b""

    def text(self, token_ids: tuple[int, ...]) -> bytes:
        """The bytes that the tokens stand for, one after the other."""
        try:
            return bytes(token_ids)  # the common prompt: all of them bytes
        except ValueError:
            return b"".join(map(self.piece, token_ids))


def tokens_asked(prompt: bytes) -> int | None:
    """How long the prompt wants the answer: N of the last ``[tokens=N]`` in it."""
    found = _TOKENS_ASKED.findall(prompt)
    return int(found[-1]) if found else None
