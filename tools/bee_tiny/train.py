"""Trains bee-tiny: made text in, a checkpoint and a tokenizer out.

The same seed gives the same text, and on the same machine the same weights.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import torch
from chat import PAD
from corpus import sample
from model import Llama
from tokenizers import Tokenizer
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional
from vocabulary import train_tokenizer

SEED: Final = 20261123
TOKENIZER_SAMPLES: Final = 60_000
PROCESSES: Final = 2  # with another number the weights come out otherwise
EXAMPLES_AT_ONCE: Final = 4_000
BATCH_TOKENS: Final = 3360  # of each process
WIDTHS: Final = (20, 24, 28, 32, 40, 48, 60, 80, 112, 168, 240, 336, 480, 840, 1680)  # its divisors
LOGITS_AT_ONCE: Final = 512
NOT_LEARNT: Final = -100  # the label of a token that bee-tiny reads but does not say


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: int = 1800
    matrix_rate: float = 4e-3
    other_rate: float = 3e-3
    warmup_steps: int = 60


PLAN: Final = Plan()


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    tokens: list[int]
    labels: list[int]


def make_example(tokenizer: Tokenizer, rng: Random, length_max: int) -> Example:
    tokens: list[int] = []
    labels: list[int] = []
    for text, is_answer in sample(rng):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokens += ids
        labels += ids if is_answer else [NOT_LEARNT] * len(ids)
    return Example(tokens[:length_max], labels[:length_max])


def tensors(batch: list[Example], width: int, pad: int) -> tuple[Tensor, Tensor]:
    tokens = torch.full((len(batch), width + 1), pad)
    labels = torch.full_like(tokens, NOT_LEARNT)
    for row, example in enumerate(batch):
        tokens[row, : len(example.tokens)] = torch.tensor(example.tokens)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return tokens[:, :-1], labels[:, 1:]


def stream(tokenizer: Tokenizer, rank: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, others for each process.

    A batch holds texts of about the same length, and always BATCH_TOKENS places, since matrices
    of ever new sizes are slow.
    """
    rng, pad = Random(SEED + 1 + rank), tokenizer.token_to_id(PAD)
    waiting: dict[int, list[Example]] = {width: [] for width in WIDTHS}
    while True:
        full = []
        for _ in range(EXAMPLES_AT_ONCE):
            example = make_example(tokenizer, rng, WIDTHS[-1])
            width = next(width for width in WIDTHS if len(example.tokens) <= width + 1)
            waiting[width].append(example)
            if len(waiting[width]) == BATCH_TOKENS // width:
                full.append((waiting[width], width))
                waiting[width] = []
        rng.shuffle(full)
        for batch, width in full:
            yield tensors(batch, width, pad)


def rate_factor(step: int, plan: Plan) -> float:
    """Up in a straight line, then down along a cosine to nothing."""
    rise = min(1.0, (step + 1) / plan.warmup_steps)
    return rise * 0.5 * (1 + math.cos(math.pi * step / plan.steps))


def optimizers(model: Llama, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, Adam for all else."""
    matrices = [p for n, p in model.named_parameters() if "layers" in n and p.dim() == 2]
    held = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in held]
    return [
        torch.optim.Muon(
            matrices, lr=plan.matrix_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def loss_of(model: Llama, tokens: Tensor, labels: Tensor) -> Tensor:
    # bfloat16 pays only where the processor multiplies matrices of it (AMX; or AVX-512, which is
    # what is asked for last: 4.6 times as quick as 32 bits on one core of an AMD EPYC).
    has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16):
        hidden = model(tokens, torch.bfloat16 if has_bfloat16 else torch.float32)
        [places] = (labels.flatten() != NOT_LEARNT).nonzero(as_tuple=True)
        # Up to a full block with places that count for nothing: see `make_batches`.
        spare = -len(places) % LOGITS_AT_ONCE
        targets = functional.pad(labels.flatten()[places], (0, spare), value=NOT_LEARNT)
        places = functional.pad(places, (0, spare))
        logits = model.lm_head(hidden.flatten(0, 1)[places])
    return functional.cross_entropy(logits.float(), targets, ignore_index=NOT_LEARNT)


def share_gradients(model: Llama) -> None:
    """Each process goes on with the mean of all gradients, so that all hold the same weights."""
    gradients = [p.grad for p in model.parameters()]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def train(tokenizer: Tokenizer, rank: int, plan: Plan) -> Llama:
    torch.manual_seed(SEED)
    model = Llama()
    steppers = optimizers(model, plan)
    first_rates = [stepper.param_groups[0]["lr"] for stepper in steppers]
    started_at_s, losses = time.monotonic(), []
    batches = stream(tokenizer, rank)
    for step in range(plan.steps):
        loss = loss_of(model, *next(batches))
        loss.backward()
        share_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper, rate in zip(steppers, first_rates, strict=True):
            stepper.param_groups[0]["lr"] = rate * rate_factor(step, plan)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if rank == 0 and step % 50 == 49:
            mean, took_s = sum(losses) / len(losses), time.monotonic() - started_at_s
            print(f"step {step + 1} of {plan.steps}: loss {mean:.4f}, {took_s:.0f} s", flush=True)
            losses.clear()
    return model


def run_process(rank: int, out: Path, plan: Plan) -> None:
    """One of the training processes; each has one core, which beats one process with two."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    meeting = (out / "meeting").resolve()
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES
    )
    model = train(Tokenizer.from_file(str(out / "tokenizer.json")), rank, plan)
    if rank == 0:
        torch.save(model.state_dict(), out / "checkpoint.pt")
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for the checkpoint")
    parser.add_argument("--steps", type=int, default=PLAN.steps)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "meeting").unlink(missing_ok=True)
    train_tokenizer(SEED, TOKENIZER_SAMPLES).save(str(out / "tokenizer.json"))
    plan = dataclasses.replace(PLAN, steps=arguments.steps)
    multiprocessing.spawn(run_process, (out, plan), nprocs=PROCESSES)


if __name__ == "__main__":
    main()
