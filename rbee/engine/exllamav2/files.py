"""What rbee itself reads from a model's folder: the files beside the weights. Pure but for reading.

Rule: a folder that exllamav2 would misread in silence is refused here.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rbee.engine.own_user import why_unreadable
from rbee.errors import EngineError, ExitCode

# A vocabulary of 256,000 with its merges is about 40 MB.
JSON_BYTES_MAX: Final = 256 * 1024 * 1024
TEXT_BYTES_MAX: Final = 4 * 1024 * 1024

# What Python raises where a document is of another form than it should be.
_FORM_ERRORS: Final = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip


@contextlib.contextmanager
def faults_of_form(what: str) -> Iterator[None]:
    """Read a document that may have any form: where it is not the expected one, it is broken.

    Raises:
      EngineError: DATA.
    """
    try:
        yield
    except _FORM_ERRORS as error:
        raise _broken(f"{what}: not of the expected form ({type(error).__name__})") from error


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The JSON documents of one folder, and its chat template."""

    folder: Path
    config: dict[str, Any]  # config.json
    generation: dict[str, Any]  # generation_config.json
    tokenizer: dict[str, Any]  # tokenizer.json
    tokenizer_config: dict[str, Any]  # tokenizer_config.json
    chat_template: str | None
    weight_bytes: int


def read_files(folder: Path) -> ModelFiles:
    """Read a folder in HF or EXL2 form.

    Raises:
      EngineError: DATA; the folder is not one, or a file is missing or broken.
    """
    if not folder.is_dir():
        raise _broken(f"{folder}: exllamav2 reads folders in HF or EXL2 form, and this is none")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise _broken(f"{folder}: no .safetensors file in it")
    tokenizer_config = _json(folder, "tokenizer_config.json", required=False)
    return ModelFiles(
        folder=folder,
        config=_json(folder, "config.json"),
        generation=_json(folder, "generation_config.json", required=False),
        tokenizer=_json(folder, "tokenizer.json"),
        tokenizer_config=tokenizer_config,
        chat_template=_chat_template(folder, tokenizer_config),
        weight_bytes=sum(each.stat().st_size for each in weights),
    )


def end_ids(files: ModelFiles, token_ids: dict[str, int]) -> frozenset[int]:
    """Every token that ends an answer. exllamav2 itself keeps one of them.

    Args:
      token_ids: the ids of the vocabulary's tokens by their text.
    """
    found: list[Any] = []
    nested = files.config.get("text_config")
    for document in (files.config, nested if isinstance(nested, dict) else {}, files.generation):
        value = document.get("eos_token_id")
        found += value if isinstance(value, list) else [] if value is None else [value]
    named = token_text(files.tokenizer_config.get("eos_token"))
    if named in token_ids:
        found.append(token_ids[named])
    wrong = [each for each in found if type(each) is not int or each < 0]
    if wrong:
        raise _broken(f"{files.folder}: eos_token_id must hold token ids, found {wrong[0]!r}")
    return frozenset(found)


def token_text(entry: object) -> str:
    """The text of a special token as tokenizer_config.json writes it: a string or an object."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else ""


def _chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return _read(path, TEXT_BYTES_MAX).decode("utf-8", "replace")
    template = tokenizer_config.get("chat_template")
    if template is None:
        template = _json(folder, "chat_template.json", required=False).get("chat_template")
    if isinstance(template, list):  # several, by name
        with faults_of_form(f"{folder}: chat_template"):
            template = {each["name"]: each["template"] for each in template}.get("default")
    return template if isinstance(template, str) else None


def _json(folder: Path, name: str, *, required: bool = True) -> dict[str, Any]:
    path = folder / name
    if not required and not path.exists():
        return {}
    raw = _read(path, JSON_BYTES_MAX)
    try:
        document = json.loads(raw)
    except RecursionError as error:
        raise _broken(f"{path}: not JSON that can be read: nested too deep") from error
    except ValueError as error:
        raise _broken(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _broken(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)
    except OSError as error:
        raise _broken(f"{path}: {why_unreadable(error)}") from error
    if len(raw) > bytes_max:
        raise _broken(f"{path}: longer than {bytes_max} bytes")
    return raw


def _broken(message: str) -> EngineError:
    return EngineError(message, ExitCode.DATA)
