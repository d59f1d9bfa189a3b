"""The stand-in for flash-attn against attention written out, token by token."""

import math
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra exllamav2)")

from rbee.engine.exllamav2 import attention  # noqa: E402

PAGE = 8  # tokens; flash-attn's own is 256


@pytest.fixture(autouse=True)
def fixed_seed() -> Any:
    torch.manual_seed(7)


def written_out(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool,
    scale: float,
    window: Any = (-1, -1),
    softcap: float = 0.0,
) -> Any:
    """q [n, heads, dim], k and v [m, kv_heads, dim]; one query and one head at a time."""
    n, heads, _ = q.shape
    m, kv_heads, _ = k.shape
    out = torch.zeros_like(q)
    for i in range(n):
        at = m - n + i
        for h in range(heads):
            g = h // (heads // kv_heads)
            pairs = []
            for j in range(m):
                if causal and j > at:
                    continue
                if window[0] >= 0 and j < at - window[0]:
                    continue
                if not causal and window[1] >= 0 and j > at + window[1]:
                    continue
                score = float(q[i, h] @ k[j, g]) * scale
                pairs.append((softcap * math.tanh(score / softcap) if softcap else score, j))
            if not pairs:
                continue
            top = max(score for score, _ in pairs)
            total = sum(math.exp(score - top) for score, _ in pairs)
            for score, j in pairs:
                out[i, h] += math.exp(score - top) / total * v[j, g]
    return out


def random_case(draw: Any) -> Any:
    kv_heads = draw.choice([1, 2, 3])
    return {
        "kv_heads": kv_heads,
        "heads": kv_heads * draw.choice([1, 2, 4]),
        "dim": draw.choice([4, 8]),
        "window": draw.choice([(-1, -1), (-1, -1), (0, 0), (3, 3), (20, 20)]),
        "softcap": draw.choice([0.0, 0.0, 2.0]),
        "scale": draw.choice([None, 0.3]),
    }


def paged(rows: Any, page_count: Any, kv_heads: Any, dim: Any, draw: Any) -> Any:
    """Lay out rows [n, kv_heads, dim] over random pages; what is beyond them is noise."""
    pages_each = max((len(row) + PAGE - 1) // PAGE for row in rows) + 1
    order = list(range(page_count))
    draw.shuffle(order)
    table = torch.tensor(
        [[order.pop() for _ in range(pages_each)] for _ in rows], dtype=torch.int32
    )
    cache = torch.full((page_count, PAGE, kv_heads, dim), 50.0).normal_() * 50
    return cache, table


def fill(cache: Any, table: Any, rows: Any) -> Any:
    for index, row in enumerate(rows):
        for at, token in enumerate(row):
            cache[int(table[index, at // PAGE]), at % PAGE] = token


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("queries", [1, 5, 11])
def test_paged_attention_equals_attention_written_out(seed: int, queries: int) -> None:
    draw = random.Random(seed * 100 + queries)
    case = random_case(draw)
    shape = (case["kv_heads"], case["dim"])
    lengths = [draw.randrange(0, 30) for _ in range(draw.choice([1, 2, 4]))]
    old_k, old_v, new_k, new_v = (
        [torch.randn(n, *shape) for n in counts]
        for counts in (lengths, lengths, [queries] * len(lengths), [queries] * len(lengths))
    )
    whole_k = [torch.cat(pair) for pair in zip(old_k, new_k, strict=True)]
    whole_v = [torch.cat(pair) for pair in zip(old_v, new_v, strict=True)]
    k_cache, table = paged(whole_k, 40, *shape, draw)
    v_cache = torch.randn_like(k_cache) * 50
    in_cache = draw.random() < 0.5
    fill(k_cache, table, whole_k if in_cache else old_k)
    fill(v_cache, table, whole_v if in_cache else old_v)
    q = torch.randn(len(lengths), queries, case["heads"], case["dim"])
    held = [n + queries if in_cache else n for n in lengths]
    got = attention.flash_attn_with_kvcache(
        q=q,
        k=None if in_cache else torch.stack(new_k),
        v=None if in_cache else torch.stack(new_v),
        k_cache=k_cache,
        v_cache=v_cache,
        cache_seqlens=torch.tensor(held, dtype=torch.int32),
        block_table=table,
        causal=True,
        softmax_scale=case["scale"],
        window_size=case["window"],
        softcap=case["softcap"],
    )
    for row in range(len(lengths)):
        expected = written_out(
            q[row],
            whole_k[row],
            whole_v[row],
            causal=True,
            scale=case["scale"] or 1 / math.sqrt(case["dim"]),
            window=case["window"],
            softcap=case["softcap"],
        )
        torch.testing.assert_close(got[row], expected, atol=2e-5, rtol=1e-4)


def test_new_keys_are_stored_in_the_pages_and_nothing_else_is_touched() -> None:
    cache = torch.zeros(6, PAGE, 1, 4)
    table = torch.tensor([[4, 2], [0, 5]], dtype=torch.int32)
    new = torch.ones(2, 3, 1, 4)
    lengths = torch.tensor([6, 0], dtype=torch.int32)
    attention.flash_attn_with_kvcache(
        q=torch.randn(2, 3, 1, 4), k=new, v=new, k_cache=cache, v_cache=cache.clone(),
        cache_seqlens=lengths, block_table=table, causal=True,
    )  # fmt: skip
    written = {(page, at) for page in range(6) for at in range(PAGE) if cache[page, at].any()}
    assert written == {(4, 6), (4, 7), (2, 0), (0, 0), (0, 1), (0, 2)}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("causal", [True, False])
def test_whole_sequences_equal_attention_written_out(seed: int, causal: bool) -> None:
    draw = random.Random(seed)
    case = random_case(draw)
    n = draw.randrange(1, 12)
    m = n + draw.randrange(0, 9)
    q = torch.randn(2, n, case["heads"], case["dim"])
    k, v = torch.randn(2, 2, m, case["kv_heads"], case["dim"]).unbind(0)
    shape = {
        "causal": causal,
        "softmax_scale": case["scale"],
        "window_size": case["window"],
        "softcap": case["softcap"],
    }
    got = attention.flash_attn_func(q, k, v, **shape)
    packed = attention.flash_attn_varlen_func(
        q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1),
        torch.tensor([0, n, 2 * n]), torch.tensor([0, m, 2 * m]), n, m, **shape,
    )  # fmt: skip
    for row in range(2):
        expected = written_out(
            q[row], k[row], v[row], causal=causal, window=case["window"],
            scale=case["scale"] or 1 / math.sqrt(case["dim"]), softcap=case["softcap"],
        )  # fmt: skip
        torch.testing.assert_close(got[row], expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(packed.unflatten(0, (2, n))[row], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (4, 9), (9, 9)])
def test_torchs_fused_kernel_and_the_blocks_agree(causal: bool, queries: int, keys: int) -> None:
    how = attention._How(causal, 0.4, (-1, -1), 0.0)
    q = torch.randn(queries, 6, 8)
    k, v = torch.randn(2, keys, 2, 8).unbind(0)
    with torch.inference_mode():  # as the generator calls it
        fused, blocks = (how.attend(q, k, v, fused=fused) for fused in (True, False))
    torch.testing.assert_close(fused, blocks, atol=2e-5, rtol=1e-4)


def test_small_bounds_give_the_same_result_in_more_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.randn(5, 1, 4, 8)
    cache_k, cache_v = torch.randn(2, 12, PAGE, 2, 8).unbind(0)
    table = torch.randperm(10).view(5, 2).to(torch.int32)
    lengths = torch.tensor([16, 3, 9, 1, 12], dtype=torch.int32)

    def attend(queries: int) -> Any:
        return attention.flash_attn_with_kvcache(
            queries, cache_k, cache_v, cache_seqlens=lengths, block_table=table, causal=True
        )

    chunk = torch.randn(5, 7, 4, 8)
    at_once = attend(q), attend(chunk)
    monkeypatch.setattr(attention, "GATHER_BYTES_MAX", 1)
    monkeypatch.setattr(attention, "SCORES_BYTES_MAX", 1)
    for whole, parts in zip(at_once, (attend(q), attend(chunk)), strict=True):
        torch.testing.assert_close(whole, parts)


def test_an_argument_that_is_not_known_is_an_error() -> None:
    q = torch.randn(1, 2, 1, 4)
    more: dict[str, Any] = {"alibi_slopes": None}
    with pytest.raises(TypeError, match="alibi_slopes"):
        attention.flash_attn_func(q, q, q, **more)


def test_install_gives_exllamav2_every_name_it_calls() -> None:
    class Attn:
        has_flash_attn = False

    attention.install(Attn)
    names = ("", "_with_paged", "_with_window", "_with_softcap")
    assert all(getattr(Attn, f"has_flash_attn{name}") for name in names)
    for name in ("flash_attn_func", "flash_attn_varlen_func", "flash_attn_with_kvcache"):
        assert getattr(Attn, name) is getattr(attention, name)
