"""Text to tokens and back, by the folder's tokenizer.json.

Rule 1: encoding is the `tokenizers` library's. exllamav2's own encoder makes special tokens of
        their text even where it was told not to, so that a client could forge a chat turn.
Rule 2: `piece` gives raw bytes from a table made once: byte-level vocabularies spell bytes as
        letters (GPT-2's table), others write them as <0xNN>.
"""

import re
from collections.abc import Collection
from typing import Any, Final

from rbee.engine.exllamav2.files import ModelFiles, end_ids, faults_of_form, token_text
from rbee.errors import EngineError, ExitCode

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Above the largest vocabulary by far. A file may name any number, and the table has a place for
# each id below the highest.
TOKEN_ID_MAX: Final = 1 << 24

_SPACE_MARK: Final = "\u2581"  # what SentencePiece writes for a space


class HfTokenizer:
    """The `Tokenizer` of a folder."""

    def __init__(self, files: ModelFiles) -> None:
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415
        except ImportError as error:
            raise EngineError(
                f"tokenizers cannot be imported ({error}): pip install 'rbee[exllamav2]'",
                ExitCode.CONFIG,
            ) from error
        path = str(files.folder / "tokenizer.json")
        try:
            self._with_special, self._as_text = Tokenizer.from_file(path), Tokenizer.from_file(path)
        except Exception as error:  # the library raises bare Exception
            raise EngineError(f"{path}: {error}", ExitCode.DATA) from error
        self._as_text.encode_special_tokens = True
        ids = token_ids(files.tokenizer)
        self.chat_template = files.chat_template
        self.bos_token = token_text(files.tokenizer_config.get("bos_token"))
        self.eos_token = token_text(files.tokenizer_config.get("eos_token"))
        self.end_ids: Collection[int] = end_ids(files, ids)
        self.special_ids: Collection[int] = special_ids(files) | {*self.end_ids}
        self._pieces = pieces(files.tokenizer, self.special_ids)
        self._bos_id = self._find_bos(files, ids)

    @property
    def vocabulary_size(self) -> int:
        return len(self._pieces)

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        encoder = self._with_special if special else self._as_text
        sound = text.encode("utf-8", "replace").decode()  # lone surrogates have no tokens
        ids: list[int] = encoder.encode(sound, add_special_tokens=False).ids
        return [self._bos_id, *ids] if bos and self._bos_id is not None else ids

    def piece(self, token_id: int) -> bytes:
        return self._pieces[token_id] if 0 <= token_id < len(self._pieces) else b""

    def special_text(self, token_id: int) -> bytes:
        """What stands for a special token in rendered chat templates."""
        text: str | None = self._with_special.id_to_token(token_id)
        return (text or "").encode()

    def _find_bos(self, files: ModelFiles, ids: dict[str, int]) -> int | None:
        """The token to put first, if the model wants one."""
        if not self.bos_token and files.config.get("bos_token_id") is not None:
            self.bos_token = self._with_special.id_to_token(files.config["bos_token_id"]) or ""
        bos_id = ids.get(self.bos_token)
        wants = files.tokenizer_config.get("add_bos_token")
        if wants is None:  # then what the file's own post-processor does is meant
            wants = bos_id in self._with_special.encode("", add_special_tokens=True).ids[:1]
        return bos_id if wants else None


def token_ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    """The ids of all tokens by their text in tokenizer.json.

    Raises:
      EngineError: DATA.
    """
    with faults_of_form("tokenizer.json"):
        vocabulary = tokenizer.get("model", {}).get("vocab")
        if isinstance(vocabulary, list):  # Unigram: [text, score] each
            ids = {entry[0]: index for index, entry in enumerate(vocabulary)}
        elif isinstance(vocabulary, dict):
            ids = dict(vocabulary)
        else:
            raise EngineError("tokenizer.json: model.vocab is neither map nor list", ExitCode.DATA)
        ids.update({each["content"]: each["id"] for each in tokenizer.get("added_tokens", [])})
    for text, token_id in ids.items():
        if type(text) is not str or type(token_id) is not int or not 0 <= token_id <= TOKEN_ID_MAX:
            raise EngineError(
                f"tokenizer.json: a token must be a text with an id from 0 to {TOKEN_ID_MAX}",
                ExitCode.DATA,
            )
    return ids


def special_ids(files: ModelFiles) -> frozenset[int]:
    """Tokens that control and are never text.

    Raises:
      EngineError: DATA.
    """
    with faults_of_form("tokenizer.json, tokenizer_config.json: added tokens"):
        listed = {each["id"] for each in files.tokenizer.get("added_tokens", []) if each["special"]}
        decoder = files.tokenizer_config.get("added_tokens_decoder", {})
        listed.update(int(key) for key, each in decoder.items() if each.get("special"))
        return frozenset(listed)


def pieces(tokenizer: dict[str, Any], special: Collection[int]) -> list[bytes]:
    """The bytes of every token, by id; b"" for special tokens and ids that are none.

    Raises:
      EngineError: DATA; the file's way to spell bytes is not known.
    """
    ids = token_ids(tokenizer)
    with faults_of_form("tokenizer.json: decoder, pre_tokenizer"):
        kinds = _kinds(tokenizer.get("decoder")) | _kinds(tokenizer.get("pre_tokenizer"))
    added = {each["id"] for each in tokenizer.get("added_tokens", [])}
    table = [b""] * (1 + max(ids.values(), default=-1))
    if "ByteLevel" in kinds:
        spell = _byte_level
    elif kinds & {"ByteFallback", "Metaspace"}:
        spell = _byte_fallback
    else:
        raise EngineError(
            "tokenizer.json: expected a ByteLevel, ByteFallback or Metaspace decoder, found"
            f" {sorted(kinds) or 'none'}",
            ExitCode.DATA,
        )
    with faults_of_form("tokenizer.json: model.vocab"):  # such as half a character
        for text, token_id in ids.items():
            if token_id not in special:
                table[token_id] = text.encode() if token_id in added else spell(text)
    return table


def _kinds(part: object) -> set[str]:
    """The types of a decoder or pre-tokenizer, and of those in it if it is a sequence."""
    if not isinstance(part, dict):
        return set()
    inner = [*part.get("decoders", []), *part.get("pretokenizers", [])]
    return {part.get("type", "")}.union(*(_kinds(each) for each in inner))


def _byte_level(text: str) -> bytes:
    return b"".join(_BYTE_OF_LETTER.get(letter) or letter.encode() for letter in text)


def _byte_fallback(text: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(_SPACE_MARK, " ").encode()


def _letters_of_bytes() -> dict[str, bytes]:
    """GPT-2's table: printable bytes stand for themselves, the others for letters from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    rest = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): bytes([byte]) for byte in printable}
    return table | {chr(256 + index): bytes([byte]) for index, byte in enumerate(rest)}


_BYTE_OF_LETTER: Final = _letters_of_bytes()
