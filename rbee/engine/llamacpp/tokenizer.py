"""Text to tokens and back, by the vocabulary in the model's file."""

import ctypes
from collections.abc import Callable

from rbee.errors import EngineError, ExitCode

_PIECE_BYTES = 256  # of nearly all tokens; longer ones are asked for again


class LlamaCppTokenizer:
    """The `Tokenizer` of a loaded model. Valid until the model is freed.

    Args:
      library: llama.cpp.
      model: pointer to the loaded model.
    """

    def __init__(self, library: ctypes.CDLL, model: int) -> None:
        self._library = library
        self._vocab: int = library.llama_model_get_vocab(model)
        self._size: int = library.llama_vocab_n_tokens(self._vocab)
        if self._size < 1:
            raise EngineError("the model has no vocabulary", ExitCode.DATA)
        self._bos_id: int = library.llama_vocab_bos(self._vocab)
        self._adds_bos: bool = library.llama_vocab_get_add_bos(self._vocab) and self._bos_id >= 0
        self._pieces: list[bytes | None] = [None] * self._size
        template: bytes | None = library.llama_model_chat_template(model, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None
        self.bos_token = self._text(self._bos_id)
        self.eos_token = self._text(library.llama_vocab_eos(self._vocab))
        self.end_ids = frozenset(self._ids_where(library.llama_vocab_is_eog))
        self.special_ids = frozenset(self._ids_where(library.llama_vocab_is_control))

    @property
    def vocabulary_size(self) -> int:
        return self._size

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        ids = (ctypes.c_int32 * room)()
        # Never ``add_special``: for some models that would add an end-of-sequence token too.
        arguments = (self._vocab, raw, len(raw), ids, room, False, special)
        count = self._library.llama_tokenize(*arguments)
        if count < 0:  # more tokens than bytes: a model that adds some of its own
            room = -count
            ids = (ctypes.c_int32 * room)()
            count = self._library.llama_tokenize(*arguments[:3], ids, room, False, special)
        assert count >= 0, f"llama_tokenize gave {count} for {len(raw)} bytes"
        start = [self._bos_id] if bos and self._adds_bos else []
        return start + list(ids[:count])

    def piece(self, token_id: int) -> bytes:
        piece = self._pieces[token_id]
        if piece is None:
            piece = self._pieces[token_id] = self._piece(token_id, special=False)
        return piece

    def special_text(self, token_id: int) -> bytes:
        """What stands for a special token in rendered chat templates."""
        return self._piece(token_id, special=True)

    def _piece(self, token_id: int, *, special: bool) -> bytes:
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            written: int = self._library.llama_token_to_piece(
                self._vocab, token_id, buffer, size, 0, special
            )
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def _text(self, token_id: int) -> str:
        if not 0 <= token_id < self._size:
            return ""
        text: bytes | None = self._library.llama_vocab_get_text(self._vocab, token_id)
        return text.decode("utf-8", "replace") if text else ""

    def _ids_where(self, holds: Callable[[int, int], bool]) -> list[int]:
        return [token_id for token_id in range(self._size) if holds(self._vocab, token_id)]
