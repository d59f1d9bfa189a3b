"""Turns the shipped GGUF into a Hugging Face directory: no training, no torch.

The GPU engines read such a directory. Its weights are the ones of the GGUF, rounded to F16. Needs
`gguf`, `numpy` and `safetensors`.
"""

import argparse
import shutil
from pathlib import Path

import gguf
import numpy as np
from gguf import quants
from safetensors.numpy import save_file

JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
SHIPPED = Path(__file__).resolve().parents[2] / "rbee" / "models" / "bee_tiny"
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    """The name of a GGUF weight in a Hugging Face file."""
    ends = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in ends:
        return ends[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def halve(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix in the order of Hugging Face: two halves to rotate."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    reader = gguf.GGUFReader(path)
    heads = {
        "attn_q": int(reader.fields["llama.attention.head_count"].contents()),
        "attn_k": int(reader.fields["llama.attention.head_count_kv"].contents()),
    }
    weights = {}
    for tensor in reader.tensors:
        weight = quants.dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = halve(weight, heads[part])
        weights[hf_name(tensor.name)] = np.ascontiguousarray(weight.astype(np.float16))
    return weights


def export(shipped: Path, out: Path) -> None:
    """Write `model.safetensors` and the JSON files beside it into `out`."""
    [model] = shipped.glob("*.gguf")
    out.mkdir(parents=True, exist_ok=True)
    weights_file = out / "model.safetensors"
    save_file(read_weights(model), weights_file, metadata={"format": "pt"})
    weights_file.chmod(0o644)  # the library leaves it to its owner alone
    for name in JSON_FILES:
        shutil.copyfile(shipped / name, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shipped", type=Path, default=SHIPPED, help="directory with the GGUF")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    arguments = parser.parse_args()
    export(arguments.shipped, arguments.out)


if __name__ == "__main__":
    main()
