"""Targets of the fuzzer that read a model's files: they want a folder, best in memory."""

import json
from pathlib import Path
from typing import Final

import numpy as np

from rbee.engine.exllamav2.files import end_ids, read_files
from rbee.engine.exllamav2.tokenizer import pieces, special_ids, token_ids
from rbee.engine.llamacpp.gguf import read_gguf
from rbee.errors import EngineError
from tests.engine.tiny_gguf import encode
from tests.security.target import Target

_GGUF: Final = encode(
    {"general.architecture": "llama", "llama.block_count": 2, "a.tokens": ["a", "bc"],
     "a.types": [1, 3], "a.flag": True, "a.float": 0.5, "split.count": 1},
    {"w": np.zeros((4, 32), np.float32), "b": np.zeros(32, np.float16)},
)  # fmt: skip

_TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "<0x0A>": 2}, "merges": []},
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
    "added_tokens": [{"id": 3, "content": "<s>", "special": True}],
}
_TOKENIZER_CONFIG = {
    "eos_token": {"content": "<s>"}, "bos_token": "<s>", "chat_template": "{{ messages }}",
    "added_tokens_decoder": {"3": {"content": "<s>", "special": True}},
}  # fmt: skip
_CONFIG = {"eos_token_id": [3], "text_config": {"eos_token_id": 3}, "vocab_size": 4}

_WORDS: Final = [
    *b"{ } [ ] : , null -1 1e400 999999999999".split(),
    *b'"id": "vocab": "special": "content": "added_tokens": "decoders": {"a": [[ ""'.split(),
]


def model_targets(folder: Path) -> tuple[Target, ...]:
    gguf = folder / "model.gguf"
    hf = folder / "hf"
    hf.mkdir()
    (hf / "model.safetensors").write_bytes(b"")

    def read_header(data: bytes) -> None:
        gguf.write_bytes(data)
        read_gguf(gguf)

    def read_documents(data: bytes) -> None:
        parts = [*data.split(b"\0\0"), b"{}", b"{}", b"{}"]
        for name, part in zip(
            ("tokenizer.json", "tokenizer_config.json", "config.json"), parts, strict=False
        ):
            (hf / name).write_bytes(part)
        files = read_files(hf)
        ends = end_ids(files, token_ids(files.tokenizer))
        table = pieces(files.tokenizer, special_ids(files) | ends)
        assert all(isinstance(piece, bytes) for piece in table)

    documents = [_TOKENIZER, _TOKENIZER_CONFIG, _CONFIG]
    seed = b"\0\0".join(json.dumps(each).encode() for each in documents)
    return (
        Target(
            "gguf", read_header, [_GGUF], [b"GGUF", b"\x09\0\0\0", b"\x08\0\0\0"], (EngineError,)
        ),
        Target("model-folder", read_documents, [seed], _WORDS, (EngineError,)),
    )
