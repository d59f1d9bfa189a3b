"""A tokenizer of bytes, some JSON-like tokens and two special ones."""

WORDS = (b'{"', b'":', b"true", b"null", b"abc", b" ", b"12")
END, OTHER_END = 256 + len(WORDS), 257 + len(WORDS)


class PlainTokenizer:
    """Implements `Tokenizer` and `GrammarTokenizer`."""

    chat_template: str | None = None
    bos_token = ""
    eos_token = "<end>"
    end_ids = frozenset((END, OTHER_END))
    special_ids = frozenset((END, OTHER_END))
    vocabulary_size = OTHER_END + 1

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        return list(text.encode())

    def piece(self, token_id: int) -> bytes:
        if token_id < 256:
            return bytes([token_id])
        return WORDS[token_id - 256] if token_id < END else b""
