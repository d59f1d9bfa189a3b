"""From a folder to a generator that is ready: configuration, weights, cache, warm-up."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from rbee.config import ModelConfig
from rbee.engine.engine import Progress
from rbee.engine.exllamav2.faults import as_engine_error, is_out_of_memory
from rbee.engine.exllamav2.files import ModelFiles
from rbee.engine.exllamav2.foreign import Foreign
from rbee.engine.exllamav2.library import Library
from rbee.engine.exllamav2.sizing import Plan, plan
from rbee.errors import EngineError, ExitCode
from rbee.vram import GIB, PAGE_TOKENS, ModelShape, cap_bytes
from rbee.wire import Phase

CACHE_CLASSES: Final = {
    16: "ExLlamaV2Cache",
    8: "ExLlamaV2Cache_Q8",
    6: "ExLlamaV2Cache_Q6",
    4: "ExLlamaV2Cache_Q4",
}

WARM_UP_TOKENS: Final = 4  # drawn by each warm-up job

# What exllamav2 raises on files that are not as it expects, besides RuntimeError.
_BROKEN_FILES: Final = (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in the GPU's memory."""

    model: Foreign
    generator: Foreign
    plan: Plan
    padded_vocabulary: int  # width of the logits


def load_model(
    library: Library,
    files: ModelFiles,
    model: ModelConfig,
    progress: Progress,
    vram_bytes_max: int | None = None,
) -> Loaded:
    """Load ``files`` into the GPU.

    Args:
      vram_bytes_max: what the supervisor has reserved; None: it has not counted.
    Raises:
      EngineError: DATA, OUT_OF_MEMORY or CONFIG.
    """
    progress(Phase.LOADING, 0.0)
    config = read_config(library, files.folder)
    free_bytes = _cap_vram(library.torch, model, vram_bytes_max)
    sizes = plan(shape_of(library, config, files.weight_bytes), model, free_bytes)
    _set_sizes(config, sizes)
    network, cache = _load_weights(library, config, sizes, model, progress)
    try:
        generator = library.generator.ExLlamaV2DynamicGenerator(
            model=network,
            cache=cache,
            tokenizer=library.exllamav2.ExLlamaV2Tokenizer(config),
            max_batch_size=sizes.batch_size,
            max_chunk_size=sizes.prefill_tokens,
            max_q_size=1,  # one token of each job in a step: no draft model
            paged=True,
        )
        warm_up(
            library, generator, sizes, config.vocab_size, lambda done: progress(Phase.WARMING, done)
        )
    except (RuntimeError, *_BROKEN_FILES) as error:
        raise as_engine_error(error, "the warm-up", ExitCode.ENGINE_FATAL) from error
    return Loaded(network, generator, sizes, generator.padded_vocab_size)


def read_config(library: Library, folder: Path) -> Foreign:
    """exllamav2's configuration of a folder.

    Raises:
      EngineError: DATA; a file is missing or the architecture is not one of exllamav2's.
    """
    try:
        config = library.exllamav2.ExLlamaV2Config(str(folder))
        config.arch_compat_overrides(quiet=True)
    except (RuntimeError, *_BROKEN_FILES) as error:
        raise as_engine_error(error, f"reading {folder}", ExitCode.DATA) from error
    if config.arch.arch_string != config.architecture:
        # exllamav2 prints a warning and loads what it does not know as a Llama.
        raise EngineError(
            f"{folder}: exllamav2 does not know the architecture {config.architecture!r}",
            ExitCode.DATA,
        )
    if config.no_flash_attn:
        raise EngineError(
            f"{folder}: {config.architecture} cannot use paged attention with"
            f" {library.attention}, and batching needs it",
            ExitCode.DATA,
        )
    # Its way through torch's attention leaves the causal mask out (0.2.9 to 0.3.2).
    config.no_sdpa = True
    return config


def shape_of(library: Library, config: Foreign, weight_bytes: int) -> ModelShape:
    return ModelShape(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
        context_length=config.max_seq_len,
        weight_bytes=weight_bytes,
        has_flash_attn=library.has_flash_attn,
    )


def warm_up(
    library: Library,
    generator: Foreign,
    sizes: Plan,
    vocabulary: int,
    tell: Callable[[float], None],
) -> None:
    """Do the largest step of each kind once: kernels are tuned, and memory is proved to do.

    First one whole chunk of a prompt, then as many jobs at once as there may be.
    """
    draw = Random(0)  # noqa: S311 - not a secret
    longest = max(1, min(sizes.prefill_tokens, sizes.context_length - WARM_UP_TOKENS))
    pages = sizes.cache_tokens // PAGE_TOKENS
    rounds = [[longest], [1] * min(sizes.batch_size, pages)]
    for done, lengths in enumerate(rounds):
        for length in lengths:
            ids = [draw.randrange(vocabulary) for _ in range(length)]
            generator.enqueue(
                library.generator.ExLlamaV2DynamicJob(
                    input_ids=library.torch.tensor([ids], dtype=library.torch.long),
                    max_new_tokens=min(WARM_UP_TOKENS, max(1, sizes.context_length - length)),
                    gen_settings=library.generator.ExLlamaV2Sampler.Settings.greedy(),
                )
            )
        while generator.num_remaining_jobs():
            tell(done / len(rounds))
            generator.iterate()
    generator.reset_page_table()  # the warm-up's prompts are nobody's prefix
    tell(1.0)


def _cap_vram(torch: Foreign, model: ModelConfig, granted_bytes: int | None) -> int:
    """Keep torch within the model's share of the GPU, and within what was reserved for it.

    Returns:
      Bytes of VRAM that this process may still take.
    """
    free, total = torch.cuda.mem_get_info(0)
    cap = cap_bytes(int(total), model, granted_bytes)
    torch.cuda.set_per_process_memory_fraction(cap / total, 0)
    return min(int(free), cap)


def _set_sizes(config: Foreign, sizes: Plan) -> None:
    longest = max(sizes.context_length, sizes.prefill_tokens)
    config.max_seq_len = -(-longest // PAGE_TOKENS) * PAGE_TOKENS
    config.max_input_len = sizes.prefill_tokens
    config.max_batch_size = 1  # of whole chunks; the generator's jobs bring a row each


def _load_weights(
    library: Library, config: Foreign, sizes: Plan, model: ModelConfig, progress: Progress
) -> tuple[Foreign, Foreign]:
    network = library.exllamav2.ExLlamaV2(config)
    cache_class = getattr(library.exllamav2, CACHE_CLASSES[sizes.cache_bits])
    try:
        cache = cache_class(network, batch_size=1, max_seq_len=sizes.cache_tokens, lazy=True)
        network.load_autosplit(
            cache, callback=lambda done, count: progress(Phase.LOADING, done / count)
        )
    except (RuntimeError, *_BROKEN_FILES) as error:
        if is_out_of_memory(error):
            raise _too_big(library.torch, sizes, model) from error
        raise as_engine_error(error, "loading the weights", ExitCode.DATA) from error
    return network, cache


def _too_big(torch: Foreign, sizes: Plan, model: ModelConfig) -> EngineError:
    free, total = torch.cuda.mem_get_info(0)
    return EngineError(
        f"the model and a cache of {sizes.cache_tokens} tokens ({sizes.cache_bits} bits) do not"
        f" fit into {model.vram_fraction:.0%} of {total / GIB:.1f} GiB of VRAM"
        f" ({free / GIB:.1f} GiB are free): lower cache_tokens, context_length or cache_bits, or"
        " raise vram_fraction",
        ExitCode.OUT_OF_MEMORY,
    )
