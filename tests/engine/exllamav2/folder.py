"""A model's folder in HF form, small: byte-level tokens, four special ones, random weights."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

END, TURN_END, BEGIN, TOOL = 256, 257, 258, 259
VOCABULARY = 260
MODEL_VOCABULARY = 270  # the model's head is wider than the tokenizer, as is usual
CONTEXT = 4096

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": MODEL_VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
}
SPECIAL = {"<|end|>": END, "<|turn_end|>": TURN_END, "<|begin|>": BEGIN}


def byte_letters() -> Any:
    """GPT-2's letters for the bytes 0 to 255, in order."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters, next_letter = [], 256
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(next_letter))
            next_letter += 1
    return letters


def added(content: str, token_id: int, *, special: Any) -> Any:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, "special": special, **flags}


def tokenizer_document() -> Any:
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
    }  # fmt: skip
    return {
        "version": "1.0",
        "added_tokens": [
            *(added(text, token_id, special=True) for text, token_id in SPECIAL.items()),
            added("<tool>", TOOL, special=False),
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {letter: byte for byte, letter in enumerate(byte_letters())},
            "merges": [],
        },
    }


def write_folder(folder: Path, **config: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": CONFIG | config,
        "generation_config.json": {"eos_token_id": [END, TURN_END]},
        "tokenizer.json": tokenizer_document(),
        "tokenizer_config.json": {
            "bos_token": "<|begin|>",
            "eos_token": {"content": "<|end|>"},
            "add_bos_token": True,
            "chat_template": "{% for m in messages %}{{ m.content }}<|turn_end|>{% endfor %}",
        },
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document), "utf-8")
    write_weights(folder / "model.safetensors", CONFIG | config)
    return folder


def write_weights(path: Path, config: dict[str, Any]) -> None:
    """Random weights of a Llama. Source: the safetensors format."""
    draw = np.random.default_rng(1)
    header: dict[str, Any] = {}
    parts, at = [], 0
    for name, shape in weight_shapes(config).items():
        scale = 1.5 / math.sqrt(shape[-1])
        weight = np.ones(shape) if len(shape) == 1 else draw.normal(0, scale, shape)
        parts.append(weight.astype(np.float16).tobytes())
        end = at + len(parts[-1])
        header[f"{name}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": [at, end]}
        at = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(parts))


def weight_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """The names that a Llama's file has, and rows and columns of each."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = hidden // config["num_attention_heads"]
    kv_width = head_dim * config["num_key_value_heads"]
    of_layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [hidden, hidden],
        "self_attn.k_proj": [kv_width, hidden],
        "self_attn.v_proj": [kv_width, hidden],
        "self_attn.o_proj": [hidden, hidden],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    shapes = {
        f"model.layers.{layer}.{name}": shape
        for layer in range(config["num_hidden_layers"])
        for name, shape in of_layer.items()
    }
    vocabulary = config["vocab_size"]
    outer = {"model.embed_tokens": [vocabulary, hidden], "lm_head": [vocabulary, hidden]}
    return shapes | outer | {"model.norm": [hidden]}
