"""A stand-in for exllamav2 0.3.2 without a GPU: its names, signatures, results and quirks.

`test_signatures.py` holds the signatures against the real package where that is installed, and
`test_engine.py` runs the same facts over the real generator there.
"""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN204, PTH118, PTH123

import json
import os

import numpy as np

from exllamav2 import attn
from exllamav2.version import __version__  # noqa: F401

VRAM_TOKENS_MAX = 1 << 20  # a larger cache does not fit


class _Arch:
    def __init__(self, arch_string):
        known = ("LlamaForCausalLM", "MistralForCausalLM", "Gemma2ForCausalLM")
        self.arch_string = arch_string if arch_string in known else "LlamaForCausalLM"


class ExLlamaV2Config:
    def __init__(self, model_dir: str | None = None):
        self.model_dir = model_dir
        path = os.path.join(model_dir, "config.json")
        with open(path, encoding="utf8") as file:
            config = json.load(file)
        assert len(config["architectures"]) == 1, "Multiple architectures defined in config.json"
        self.architecture = config["architectures"][0]
        self.arch = _Arch(self.architecture)
        eos = config.get("eos_token_id")
        self.eos_token_id = eos[0] if isinstance(eos, list) else eos
        self.vocab_size = config["vocab_size"]
        self.hidden_size = config["hidden_size"]
        self.intermediate_size = config["intermediate_size"]
        self.num_hidden_layers = config["num_hidden_layers"]
        self.num_attention_heads = config["num_attention_heads"]
        self.num_key_value_heads = config["num_key_value_heads"]
        self.head_dim = self.hidden_size // self.num_attention_heads
        self.max_seq_len = config["max_position_embeddings"]
        self.max_input_len = 2048
        self.max_batch_size = 1
        self.no_flash_attn = self.no_sdpa = False

    def arch_compat_overrides(self, quiet: bool = False, warn_only=False):
        if self.architecture == "Gemma2ForCausalLM" and not attn.has_flash_attn_with_softcap:
            self.no_flash_attn = True


class ExLlamaV2:
    def __init__(self, config: ExLlamaV2Config, lazy_load=False, archparams=None):
        self.config = config
        self.is_loaded = False

    def load_autosplit(
        self,
        cache,
        reserve_vram: int | list[int] | None = None,
        last_id_only: bool = False,
        callback=None,
        callback_gen=None,
        progress: bool = False,
    ):
        modules = 2 * self.config.num_hidden_layers + 3
        for index in range(modules):
            if callback is not None:
                callback(index, modules)
            if cache.max_seq_len > VRAM_TOKENS_MAX:
                raise RuntimeError("Insufficient VRAM for model and cache")
        if callback is not None:
            callback(modules, modules)
        self.is_loaded = True

    def forward_row(self, ids):
        """Logits of the token after ``ids``: they hang on the last three, and nothing else."""
        draw = np.random.default_rng([*ids[-3:]])
        padded = -(-self.config.vocab_size // 32) * 32
        row = np.full(padded, -65504.0, dtype=np.float32)
        row[: self.config.vocab_size] = draw.normal(0, 3, self.config.vocab_size)
        row[[256, 257]] = -60.0  # an answer ends where a test says so
        return row

    def unload(self):
        self.is_loaded = False


class ExLlamaV2Cache:
    def __init__(
        self,
        model,
        batch_size: int = 1,
        max_seq_len: int = -1,
        copy_from=None,
        lazy: bool = False,
        num_key_value_heads: int | None = None,
        fixed_device: int | None = None,
    ):
        self.model = model
        self.batch_size = batch_size
        self.max_seq_len = max_seq_len


class ExLlamaV2Cache_Q4(ExLlamaV2Cache):  # noqa: N801
    pass


class ExLlamaV2Cache_Q6(ExLlamaV2Cache):  # noqa: N801
    pass


class ExLlamaV2Cache_Q8(ExLlamaV2Cache):  # noqa: N801
    pass


class ExLlamaV2Tokenizer:
    def __init__(self, config, lazy_init=True, force_json=False, force_spm=False):
        path = os.path.join(config.model_dir, "tokenizer.json")
        with open(path, encoding="utf8") as file:
            document = json.load(file)
        ids = dict(document["model"]["vocab"])
        ids.update({each["content"]: each["id"] for each in document["added_tokens"]})
        self.actual_vocab_size = 1 + max(ids.values())

    def get_vocab_size(self) -> int:
        return self.actual_vocab_size

    def decode(self, ids):
        """Byte-level: one token a byte, special tokens nothing."""
        return bytes(each for each in ids if each < 256).decode("utf-8", "replace")
