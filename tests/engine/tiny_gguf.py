"""Writes tiny models with random weights as GGUF files: a Llama of some 10,000 parameters.

The same seed gives the same file. Greedy answers vary from token to token and never end by
themselves: the rows of the end tokens in the output matrix are zero, and others are not.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BOS, EOS, END_OF_TURN, USER = "<|bos|>", "<|endoftext|>", "<|end|>", "<|user|>"
SPECIAL = (BOS, EOS, END_OF_TURN, USER)
WIDTH, HEADS, LAYERS, FEED_FORWARD = 32, 2, 2, 64
NORMAL, CONTROL = 1, 3  # token types of the format
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|user|>{{ message.content }}<|end|>{% endfor %}"
)

FloatArray = NDArray[np.float32]
Tensor = NDArray[np.float32] | NDArray[np.float16]
Value = int | float | bool | str | Sequence[str] | Sequence[int]


def vocabulary() -> list[str]:
    """256 bytes in GPT-2's spelling, four merged tokens, and the special ones."""
    return [*_byte_letters(), "th", "he", "the", "Ġthe", *SPECIAL]


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 0,
    context_length: int = 256,
    template: str | None = TEMPLATE,
    has_half_matrices: bool = False,
) -> Path:
    tokens = vocabulary()
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.context_length": context_length,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in SPECIAL else NORMAL for token in tokens],
        "tokenizer.ggml.merges": ["t h", "h e", "th e", "Ġ the"],
        "tokenizer.ggml.bos_token_id": tokens.index(BOS),
        "tokenizer.ggml.eos_token_id": tokens.index(EOS),
        "tokenizer.ggml.eot_token_id": tokens.index(END_OF_TURN),
        "tokenizer.ggml.add_bos_token": True,
    }
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    tensors: dict[str, Tensor] = dict(_weights(tokens, np.random.default_rng(seed)))
    if has_half_matrices:
        tensors = {n: t.astype(np.float16) if t.ndim == 2 else t for n, t in tensors.items()}
    path.write_bytes(encode(metadata, tensors))
    return path


def encode(metadata: dict[str, Value], tensors: Mapping[str, Tensor]) -> bytes:
    """A whole GGUF file, version 3, with floats of 32 and 16 bits."""
    head = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    head += [_text(key) + _value(value) for key, value in metadata.items()]
    offset, bodies = 0, []
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]  # the format counts the fastest dimension first
        kind = int(tensor.dtype == np.float16)
        entry = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        head.append(_text(name) + entry)
        body = _padded(tensor.tobytes())
        bodies.append(body)
        offset += len(body)
    return _padded(b"".join(head)) + b"".join(bodies)


def _weights(tokens: list[str], random: np.random.Generator) -> dict[str, FloatArray]:
    def matrix(outputs: int, inputs: int, scale: float = 1.0) -> FloatArray:
        values = random.standard_normal((outputs, inputs), np.float32)
        return values * np.float32(scale / inputs**0.5)

    output = matrix(len(tokens), WIDTH, 4.0)
    output[[tokens.index(token) for token in SPECIAL]] = 0
    ones = np.ones(WIDTH, np.float32)
    tensors = {
        "token_embd.weight": matrix(len(tokens), WIDTH, 4.0),
        "output_norm.weight": ones,
        "output.weight": output,
    }
    for layer in range(LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ones,
            f"blk.{layer}.attn_q.weight": matrix(WIDTH, WIDTH, 2.0),
            f"blk.{layer}.attn_k.weight": matrix(WIDTH, WIDTH, 2.0),
            f"blk.{layer}.attn_v.weight": matrix(WIDTH, WIDTH, 2.0),
            f"blk.{layer}.attn_output.weight": matrix(WIDTH, WIDTH, 2.0),
            f"blk.{layer}.ffn_norm.weight": ones,
            f"blk.{layer}.ffn_gate.weight": matrix(FEED_FORWARD, WIDTH),
            f"blk.{layer}.ffn_up.weight": matrix(FEED_FORWARD, WIDTH),
            f"blk.{layer}.ffn_down.weight": matrix(WIDTH, FEED_FORWARD),
        }
    return tensors


def _byte_letters() -> Iterable[str]:
    """How GPT-2's tokenizer spells each byte: itself if printable, else a letter above 255."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    above = 256
    for byte in range(256):
        if byte in printable:
            yield chr(byte)
        else:
            yield chr(above)
            above += 1


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(str(v)) for v in value)
    return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 32)
