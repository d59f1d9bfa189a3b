"""The real exllamav2 generator on a CPU: its own sampler, compiled without CUDA, and a small
transformer over its own paged cache in the place of the model that only a GPU can run.
"""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204, PLC0415, RUF007

import math
import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

HERE = Path(__file__).parent / "cpu_extension"


def build_extension(package, build_folder):
    """Compile exllamav2's sampling code; about a minute on two cores.

    Args:
      package: the folder of the installed exllamav2.
    """
    sources = package / "exllamav2_ext"
    empty = build_folder / "empty"  # headers of CUDA that are included and not used
    for name in (
        "c10/cuda/CUDAGuard.h",
        "ATen/cuda/CUDAContext.h",
        "cuda_runtime.h",
        "cuda_fp16.h",
    ):
        (empty / name).parent.mkdir(parents=True, exist_ok=True)
        if not (empty / name).exists():
            (empty / name).touch()
    parts = ("ext_sampling", "cpp/generator", "cpp/profiling", "cpp/sampling", "cpp/sampling_avx2")
    extension = load(
        name="exllamav2_ext",
        sources=[str(HERE / "bindings.cpp"), *(str(sources / f"{part}.cpp") for part in parts)],
        extra_include_paths=[str(empty), str(sources)],
        extra_cflags=["-O2"],
        build_directory=str(build_folder),
    )
    extension.cache_rotate = cache_rotate
    sys.modules["exllamav2_ext"] = extension


def cache_rotate(cache, order, buffer):
    """Move pages in a ring, each to the place of the one before. Source: cuda/cache.cu."""
    pages = order.tolist()
    first = cache[pages[0]].clone()
    for target, source in zip(pages, pages[1:], strict=False):
        cache[target] = cache[source]
    cache[pages[-1]] = first


class CpuModel:
    """A random transformer with the methods that the generator and the loader call."""

    def __init__(self, config, lazy_load=False):
        self.config = config
        self.cache_map = {}
        make = torch.Generator().manual_seed(1)

        def weight(rows, columns):
            return torch.randn(rows, columns, generator=make) * (1.5 / math.sqrt(rows))

        hidden, heads = config.hidden_size, config.num_attention_heads * config.head_dim
        kv_width = config.num_key_value_heads * config.head_dim
        self.embedding = torch.randn(config.vocab_size, hidden, generator=make)
        self.layers = [
            (weight(hidden, heads), weight(hidden, kv_width), weight(hidden, kv_width),
             weight(heads, hidden))
            for _ in range(config.num_hidden_layers)
        ]  # fmt: skip
        self.head = weight(hidden, config.vocab_size) * 4
        self.rows_forwarded = 0

    def load_autosplit(
        self, cache, reserve_vram=None, last_id_only=False, callback=None, callback_gen=None,
        progress=False,
    ):  # fmt: skip
        for index in range(self.config.num_hidden_layers):
            callback(index, self.config.num_hidden_layers)
            self.cache_map[index] = "cpu"
            cache.update_cache_tensors()
        callback(self.config.num_hidden_layers, self.config.num_hidden_layers)

    def forward_chunk(self, input_ids, attn_params, cache, preprocess_only=False, **rest):
        from exllamav2 import attn

        batch, count = input_ids.shape
        self.rows_forwarded += batch * count
        at = attn_params.cache_seqlens[:, None] + torch.arange(count)[None, :]
        waves = torch.arange(self.config.hidden_size)[None, None, :] * 0.05 + 0.01
        x = self.embedding[input_ids] + torch.sin(at[:, :, None] * waves)
        for index, (w_q, w_k, w_v, w_o) in enumerate(self.layers):
            keys, values = cache.get_kv_state(index, batch, 0, 0)
            shape = (keys.shape[1] // attn_params.page_size, attn_params.page_size, *keys.shape[2:])
            normal = torch.nn.functional.layer_norm(x, x.shape[-1:])
            q, k, v = ((normal @ w).view(batch, count, -1, self.config.head_dim).half()
                       for w in (w_q, w_k, w_v))  # fmt: skip
            mixed = attn.flash_attn_with_kvcache(
                q=q, k=k, v=v, k_cache=keys.view(shape), v_cache=values.view(shape),
                cache_seqlens=attn_params.cache_seqlens, block_table=attn_params.block_index,
                causal=True, softmax_scale=1 / math.sqrt(self.config.head_dim),
            )  # fmt: skip
            x = x + mixed.flatten(2).float() @ w_o
        if preprocess_only:
            return {}
        logits = torch.nn.functional.layer_norm(x, x.shape[-1:]) @ self.head
        logits[..., [256, 257]] = -60.0  # an answer ends where a test says so
        padding = -self.config.vocab_size % 32
        return {"logits": torch.nn.functional.pad(logits, (0, padding), value=-65504.0)}

    def unload(self):
        self.layers = []


def pretend_cuda(monkeypatch):
    """Let torch say that it has one GPU, which nothing then uses."""
    gib = 1 << 30
    says = {
        "is_available": True, "device_count": 1, "get_device_name": "NVIDIA H200",
        "get_device_capability": (9, 0), "mem_get_info": (138 * gib, 139 * gib),
        "set_per_process_memory_fraction": None, "memory_reserved": 3 * gib,
        "memory_allocated": 0, "empty_cache": None,
    }  # fmt: skip
    for name, value in says.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_args, value=value: value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def install(monkeypatch):
    """Put the small transformer where exllamav2 has its model."""
    import exllamav2

    pretend_cuda(monkeypatch)
    monkeypatch.setattr(exllamav2, "ExLlamaV2", CpuModel)
