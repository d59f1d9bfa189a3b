"""Attention in plain torch, under the names that exllamav2 takes from the flash-attn package.

exllamav2's batching generator keeps keys and values in pages and calls flash-attn on them.
Where flash-attn cannot be imported, `install` puts these functions in its place: slower, the
same results, and batching, prefix cache and quantised caches work as they do with it.

Rule 1: same argument names and meaning as flash-attn 2; an argument that is not taken here is
        a TypeError, never ignored.
Rule 2: masks are aligned to the bottom right: the last query sees the last key.
Rule 3: what is gathered or scored at once is bounded, whatever the batch and the context.
Source: the docstrings of flash_attn_interface.py, flash-attn 2.8.
"""

import math
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from rbee.engine.exllamav2.foreign import Foreign
from rbee.vram import GATHER_BYTES_MAX, SCORES_BYTES_MAX

# Of torch's own flash kernel. Without it torch writes out all scores of a prompt.
FUSED_HEAD_DIM_MAX: Final = 256
FUSED_CAPABILITY_MIN: Final = (8, 0)

Window = tuple[int, int]
NO_WINDOW: Final[Window] = (-1, -1)


def install(attn: Foreign) -> None:
    """Make ``exllamav2.attn`` use this file. It looks the names up when it calls them."""
    attn.flash_attn_func = flash_attn_func
    attn.flash_attn_varlen_func = flash_attn_varlen_func
    attn.flash_attn_with_kvcache = flash_attn_with_kvcache
    attn.has_flash_attn = True
    attn.has_flash_attn_with_paged = True
    attn.has_flash_attn_with_window = True
    attn.has_flash_attn_with_softcap = True


def flash_attn_func(  # noqa: PLR0913 - flash-attn's signature
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    softmax_scale: float | None = None,
    window_size: Window = NO_WINDOW,
    softcap: float = 0.0,
) -> Tensor:
    """Attention of whole sequences.

    Args:
      q: [batch, queries, heads, head_dim].
      k: [batch, keys, kv_heads, head_dim], heads a multiple of kv_heads; v alike.
    Returns:
      [batch, queries, heads, head_dim].
    """
    how = _How(causal, _scale(q, softmax_scale), window_size, softcap)
    return torch.cat([how.attend(q[b], k[b], v[b]) for b in range(q.shape[0])]).view(q.shape)


def flash_attn_varlen_func(  # noqa: PLR0913, PLR0917 - flash-attn's
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,  # noqa: ARG001 - for kernels
    max_seqlen_k: int,  # noqa: ARG001 - for kernels
    *,
    causal: bool = False,
    softmax_scale: float | None = None,
    window_size: Window = NO_WINDOW,
    softcap: float = 0.0,
) -> Tensor:
    """Attention of sequences laid end to end.

    Args:
      q: [tokens, heads, head_dim]; k and v: [tokens, kv_heads, head_dim].
      cu_seqlens_q: int [sequences + 1], where each sequence starts, and the end of the last.
    """
    how = _How(causal, _scale(q, softmax_scale), window_size, softcap)
    out = torch.empty_like(q)
    starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for index in range(len(starts_q) - 1):
        of_q = slice(starts_q[index], starts_q[index + 1])
        of_k = slice(starts_k[index], starts_k[index + 1])
        out[of_q] = how.attend(q[of_q], k[of_k], v[of_k])
    return out


def flash_attn_with_kvcache(  # noqa: PLR0913 - flash-attn's signature
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    *,
    cache_seqlens: Tensor,
    block_table: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = NO_WINDOW,
    softcap: float = 0.0,
) -> Tensor:
    """Attention over a paged cache, which takes new keys and values in place.

    Args:
      q: [batch, queries, heads, head_dim].
      k_cache: [pages, page_size, kv_heads, head_dim]; v_cache alike.
      k: new keys to store behind the first ``cache_seqlens``, [batch, new, kv_heads, head_dim].
        None: they are in the cache, and counted in ``cache_seqlens``. v alike.
      cache_seqlens: int [batch], tokens in the cache.
      block_table: int [batch, pages of the longest], the pages of each sequence in order.
    """
    if k is not None and v is not None:
        _store(k_cache, k, cache_seqlens, block_table)
        _store(v_cache, v, cache_seqlens, block_table)
        cache_seqlens = cache_seqlens + k.shape[1]
    how = _How(causal, _scale(q, softmax_scale), window_size, softcap)
    if q.shape[1] == 1:
        rows = _decode_groups(k_cache, block_table)
        parts = [
            how.attend_one(
                q[group],
                _gather(k_cache, block_table[group]),
                _gather(v_cache, block_table[group]),
                cache_seqlens[group],
            )
            for group in rows
        ]
        return torch.cat(parts)
    # A prompt's chunk: one sequence in practice, so that the lengths may be waited for.
    lengths: list[int] = cache_seqlens.tolist()
    out = torch.empty_like(q)
    for row, length in enumerate(lengths):
        keys = _gather(k_cache, block_table[row : row + 1])[0, :length]
        values = _gather(v_cache, block_table[row : row + 1])[0, :length]
        out[row] = how.attend(q[row], keys, values)
    return out


class _How:
    """The shape of one attention: scale, causality, window, softcap."""

    def __init__(self, causal: bool, scale: float, window: Window, softcap: float) -> None:
        self.causal = causal
        self.scale = scale
        self.left = window[0]
        self.right = 0 if causal else window[1]
        self.softcap = softcap

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, fused: bool | None = None) -> Tensor:
        """One sequence: q [queries, heads, head_dim], k and v [keys, kv_heads, head_dim]."""
        if fused is None:
            fused = _has_fused(q)
        is_plain = self.left < 0 and not self.softcap and self.right in (-1, 0)
        if fused and is_plain and q.shape[0] <= k.shape[0]:
            return self._fused(q, k, v)
        return self._blockwise(q, k, v)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = causal_lower_right(q.shape[0], k.shape[0]) if self.right == 0 else None
        query, key, value = (each.transpose(0, 1).unsqueeze(0) for each in (q, k, v))
        attended: Tensor = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return attended[0].transpose(0, 1)

    def _blockwise(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, heads, _ = q.shape
        keys = k.shape[0]
        block = max(1, SCORES_BYTES_MAX // (heads * keys * 4))
        key_at = torch.arange(keys, device=q.device)
        parts = []
        for start in range(0, queries, block):
            part = q[start : start + block]
            query_at = torch.arange(start, start + part.shape[0], device=q.device)
            seen = self._seen(query_at[:, None] + (keys - queries), key_at[None, :])
            grouped = part.reshape(part.shape[0], k.shape[1], -1, part.shape[2])
            grouped = grouped.permute(1, 2, 0, 3)  # kv, group, query, dim
            mixed = self._mix(grouped, k.transpose(0, 1)[:, None], v.transpose(0, 1)[:, None], seen)
            parts.append(mixed.permute(2, 0, 1, 3).flatten(1, 2))
        return torch.cat(parts)

    def attend_one(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        """One query of each of several sequences, without waiting for the lengths.

        Args:
          q: [batch, 1, heads, head_dim]; k and v: [batch, padded keys, kv_heads, head_dim].
          lengths: int [batch], how many keys count.
        """
        key_at = torch.arange(k.shape[1], device=q.device)[None, :]
        last_at = lengths.to(torch.long)[:, None] - 1
        seen = (key_at <= last_at) & self._seen(last_at, key_at)
        grouped = q.reshape(q.shape[0], k.shape[2], -1, q.shape[3])  # batch, kv, group, dim
        mixed = self._mix(grouped, k.transpose(1, 2), v.transpose(1, 2), seen[:, None, None, :])
        return mixed.flatten(1, 2).unsqueeze(1)

    def _seen(self, query_at: Tensor, key_at: Tensor) -> Tensor:
        """Which keys a query sees; both counted from the first key."""
        seen = torch.ones_like(query_at - key_at, dtype=torch.bool)
        if self.left >= 0:
            seen = seen & (key_at >= query_at - self.left)
        if self.right >= 0:
            seen = seen & (key_at <= query_at + self.right)
        return seen

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        scores = torch.matmul(q, k.transpose(-1, -2)).float() * self.scale
        if self.softcap:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        scores = scores.masked_fill(~seen, -math.inf)
        # A query that sees no key gets zeros, as flash-attn gives it.
        weights = torch.softmax(scores, dim=-1).nan_to_num(0.0)
        return torch.matmul(weights.to(v.dtype), v)


def _has_fused(q: Tensor) -> bool:
    fits = q.is_cuda and q.shape[-1] <= FUSED_HEAD_DIM_MAX and q.dtype != torch.float32
    return bool(fits) and torch.cuda.get_device_capability(q.device) >= FUSED_CAPABILITY_MIN


def _scale(q: Tensor, softmax_scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if softmax_scale is None else softmax_scale


def _store(cache: Tensor, new: Tensor, lengths: Tensor, block_table: Tensor) -> None:
    """Write ``new`` [batch, new, kv_heads, head_dim] behind the first ``lengths`` of each row."""
    page_size = cache.shape[1]
    at = lengths.to(torch.long)[:, None] + torch.arange(new.shape[1], device=new.device)[None, :]
    pages = torch.gather(block_table.to(torch.long), 1, at // page_size)
    cache[pages, at % page_size] = new.to(cache.dtype)


def _gather(cache: Tensor, block_table: Tensor) -> Tensor:
    """The pages of some rows, end to end: [rows, pages * page_size, kv_heads, head_dim]."""
    return cache[block_table.to(torch.long)].flatten(1, 2)


def _decode_groups(cache: Tensor, block_table: Tensor) -> Iterator[slice]:
    """Rows that may be gathered together."""
    batch, pages = block_table.shape
    row_bytes = 2 * pages * cache[0].numel() * cache.element_size()
    size = max(1, GATHER_BYTES_MAX // row_bytes)
    for start in range(0, batch, size):
        yield slice(start, start + size)
