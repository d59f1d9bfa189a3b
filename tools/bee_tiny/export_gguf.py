"""Writes the shipped files: a checkpoint as Q5_1 GGUF, and the small JSON files beside it.

Q5_1 because llama.cpp computes it in one way whatever the number of rows in a batch: there is no
kernel for several rows at once. So an answer has the same bytes whatever is computed beside it,
at no cost (`ROW_BY_ROW` in rbee's adapter); and the file is a third of what it is in F16.
"""

import argparse
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from chat import BOS, CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS
from gguf import GGMLQuantizationType, quants
from model import SHAPE, Shape
from tokenizers import Tokenizer
from torch import Tensor

NAME = "bee-tiny"
MATRIX_TYPE = GGMLQuantizationType.Q5_1
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """The name of a Hugging Face weight in a GGUF file."""
    ends = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in ends:
        return ends[name]
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix in the order of GGUF: the pairs to rotate side by side."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def heads_of(name: str, shape: Shape) -> int | None:
    """How many heads a weight has whose rows are to be interleaved."""
    if name.endswith("q_proj.weight"):
        return shape.heads
    return shape.kv_heads if name.endswith("k_proj.weight") else None


def merges(tokenizer_file: Path) -> list[str]:
    merge_list = json.loads(tokenizer_file.read_text("utf-8"))["model"]["merges"]
    return [" ".join(merge) for merge in merge_list]


def quantise(matrix: np.ndarray) -> np.ndarray:
    """A matrix in blocks of 32 values of 5 bits, each with a scale and a minimum in 16 bits.

    It is rounded to F16 first: weights that were kept in F16 give the same file.

    Returns:
      uint8 [rows, bytes of a row].
    """
    return quants.quantize(matrix.astype(np.float16).astype(np.float32), MATRIX_TYPE)


def write_gguf(weights: dict[str, Tensor], tokenizer_file: Path, path: Path) -> None:
    """Write the whole file. Matrices become Q5_1, norms stay F32."""
    writer = gguf.GGUFWriter(path, "llama")
    _add_shape(writer, SHAPE)
    _add_tokenizer(writer, tokenizer_file)
    for name, tensor in weights.items():
        weight = tensor.float().numpy()
        heads = heads_of(name, SHAPE)
        if heads is not None:
            weight = interleave(weight, heads)
        if weight.ndim == 2:
            writer.add_tensor(gguf_name(name), quantise(weight), raw_dtype=MATRIX_TYPE)
        else:
            writer.add_tensor(gguf_name(name), weight.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name(NAME)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q5_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokens = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    kinds = [
        gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges(tokenizer_file))
    writer.add_bos_token_id(tokenizer.token_to_id(BOS))
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(PAD))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_json_files(tokenizer_file: Path, directory: Path) -> None:
    """What describes the model beside its weights, as Hugging Face lays it out."""
    ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    ends = {"bos_token_id": ids[BOS], "eos_token_id": ids[END], "pad_token_id": ids[PAD]}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "torch_dtype": "float16",
        "vocab_size": SHAPE.vocabulary,
        "hidden_size": SHAPE.hidden,
        "intermediate_size": SHAPE.feed_forward,
        "num_hidden_layers": SHAPE.layers,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.kv_heads,
        "head_dim": SHAPE.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": SHAPE.context,
        "rms_norm_eps": SHAPE.norm_epsilon,
        "rope_theta": SHAPE.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": SHAPE.rope_theta},
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        **ends,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": SHAPE.context,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"do_sample": False, **ends}
    files = {
        "config.json": config,
        "generation_config.json": generation,
        "tokenizer_config.json": tokenizer_config,
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    shutil.copyfile(tokenizer_file, directory / "tokenizer.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, required=True, help="what train.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="directory of the shipped files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = torch.load(arguments.trained / "checkpoint.pt", weights_only=True)
    tokenizer_file = arguments.trained / "tokenizer.json"
    beside = arguments.out / f"{NAME}.gguf.new"
    write_gguf(weights, tokenizer_file, beside)
    beside.replace(arguments.out / f"{NAME}.gguf")  # a worker may have the old one mapped
    write_json_files(tokenizer_file, arguments.out)


if __name__ == "__main__":
    main()
