"""Draws from a seed what is to happen in its simulation. Pure."""

import dataclasses
import random
from typing import Final

from rbee.config import RestartConfig, WorkerConfig
from rbee.errors import ErrorCode
from rbee.rate_limits import Priority
from tests.simulation.oracle import Poison, Script
from tests.simulation.scenario import (
    CALM_S,
    HEAL_S,
    Act,
    Arrival,
    Deed,
    GpuPlan,
    Leaving,
    ModelPlan,
    Scenario,
    Weather,
    chance,
)

# Time that the end of a simulation is given beside what `scenario` has.
CLOSE_S: Final = 30.0

SLOTS_MAX: Final = 3  # of a model

# What an order asks for, about.
ANSWER_TOKENS: Final = 40

# How often others ask for the same, about then: of poison, which clients try again, and else.
POISON_REPEATED: Final = 0.3
OTHERS_REPEATED: Final = 0.03


def draw(seed: int, duration_s: float) -> Scenario:
    own = chance(seed, "scenario")
    weather = own.choices(list(Weather), (1, 2, 3, 5))[0]
    ends_calm = own.random() < 0.75
    shutdown_s = duration_s - CLOSE_S
    stormy_s = shutdown_s - HEAL_S - CALM_S if ends_calm else shutdown_s + CLOSE_S
    models = tuple(_model(seed, number) for number in range(own.choice((1, 1, 1, 2))))
    worker = _worker_limits(seed)
    begin = min(stormy_s, shutdown_s)
    return Scenario(
        seed=seed,
        weather=weather,
        duration_s=duration_s,
        stormy_s=stormy_s,
        ends_calm=ends_calm,
        shutdown_s=shutdown_s if ends_calm else own.uniform(5.0, shutdown_s),
        hurry_after_s=own.uniform(0.0, 20.0) if own.random() < 0.2 else None,
        drain_s=own.choice((0.0, 2.0, 12.0, 12.0)),
        queue_max=own.choice((0, 4, 32, 1024, 1024)),
        worker=worker,
        restart=_restart_limits(seed),
        models=models,
        arrivals=(
            *_with_equals(seed, _arrivals(seed, weather, models, begin), begin),
            *(_calm_arrivals(seed, models, shutdown_s - CALM_S) if ends_calm else ()),
        ),
        acts=_acts(seed, weather, models, worker, begin),
        fault_share=own.choice((0.1, 0.3, 0.6, 0.9)) if weather is Weather.STORM else 0.0,
        gpu=_gpu(seed, weather, models, begin),
    )


def _model(seed: int, number: int) -> ModelPlan:
    own = chance(seed, f"model {number}")
    name = f"m{number}"
    return ModelPlan(
        name=name,
        slots=tuple(f"{name}-{slot}" for slot in range(own.randint(1, SLOTS_MAX))),
        batch_size=own.choice((1, 2, 4, 8)),
        import_s=own.uniform(0.2, 4.0),
        load_s=own.choice((0.1, 2.0, 10.0, 45.0)),
        load_marks=own.choice((4, 10, 40)),
        step_s=own.choice((0.05, 0.2, 0.5, 1.0)),
        step_tokens_max=own.choice((1, 1, 3, 8)),
        prompt_tokens_per_s=own.choice((60.0, 300.0, 2000.0)),
        prompt_chunk=own.choice((256, 512, 2048)),
        reads_beside=own.random() < 0.5,
        link_messages_max=own.choice((4, 64, 64, 4096)),
        lag_s=own.choice((0.0, 0.0, 0.004, 0.5)),
    )


def _gpu(
    seed: int, weather: Weather, models: tuple[ModelPlan, ...], until_s: float
) -> GpuPlan | None:
    own = chance(seed, "gpu")
    if own.random() > 0.4:
        return None
    count, total = sum(len(model.slots) for model in models), 1000
    lists = own.random() < 0.7
    # Who loads one after the other takes so many times as long, and there are `HEAL_S`.
    is_quick = all(model.load_s <= 10.0 for model in models)
    if lists and is_quick and own.random() < 0.8:  # not all of them fit while they load
        holds = total // (count + 1)
        least = most = int(1.5 * holds)
    else:
        least, most = total // (2 * count), total // count
        holds = own.randint(least, most)
    faults: list[tuple[float, str]] = []
    at_s = own.uniform(0.0, 200.0)
    while weather is not Weather.FAIR and at_s < until_s:
        faults.append((at_s, own.choice(("silent", "hangs", "lies", "hot"))))
        at_s += own.choice((1.0, 10.0, 60.0))
        faults.append((at_s, "well"))
        at_s += own.uniform(10.0, 400.0)
    return GpuPlan(
        total=total,
        least=least,
        most=most,
        holds=holds,
        late_s=own.choice((0.0, 0.3, 3.0, 30.0)) if weather is not Weather.FAIR else 0.0,
        lists=lists,
        room_timeout_s=own.choice((5.0, 60.0)),
        faults=tuple(faults),
    )


def _worker_limits(seed: int) -> WorkerConfig:
    own = chance(seed, "worker limits")
    return WorkerConfig(
        beat_s=own.choice((2.0, 5.0, 5.0)),
        failovers_max=own.choice((0, 1, 3, 3, 3)),
        quarantine_s=own.choice((120.0, 3600.0, 3600.0)),
    )


def _restart_limits(seed: int) -> RestartConfig:
    own = chance(seed, "restart limits")
    return RestartConfig(
        failures_max=own.choice((1, 3, 3, 3, 8)),
        forget_after_s=own.choice((60.0, 300.0)),
        cooldown_s=own.choice((0.0, 0.0, 30.0, 300.0)),
    )


def _arrivals(
    seed: int, weather: Weather, models: tuple[ModelPlan, ...], until_s: float
) -> list[Arrival]:
    own = chance(seed, "arrivals")
    every_s = sum(map(_service_s, models)) / len(models) / own.choice((0.15, 0.3, 0.6, 1.5))
    every_s = min(60.0, max(4.0, every_s))
    poisons = _poisons(own, models) if weather in (Weather.POISON, Weather.STORM) else []
    arrivals: list[Arrival] = []
    classes = chance(seed, "classes")
    weights = classes.choice(((0, 1, 0), (1, 1, 1), (8, 1, 1), (1, 8, 8)))
    at_s = own.uniform(0.0, 30.0)
    while at_s < until_s:
        for _ in range(own.choice((1, 1, 1, 1, 2, 12))):
            model = own.choice(models)
            [priority] = classes.choices(list(Priority), weights)
            arrival = _arrival(own, len(arrivals), at_s, model, poisons)
            arrivals.append(dataclasses.replace(arrival, priority=priority))
        at_s += own.expovariate(1 / every_s)
    return arrivals


def _with_equals(seed: int, arrivals: list[Arrival], until_s: float) -> list[Arrival]:
    """The same, and others who ask for just what these do, about then."""
    own = chance(seed, "equals")
    equals: list[Arrival] = []
    for arrival in arrivals:
        is_poison = any(script.poison for script in arrival.scripts)
        if own.random() >= (POISON_REPEATED if is_poison else OTHERS_REPEATED):
            continue
        for _ in range(own.choice((1, 1, 3, 8))):
            equal = dataclasses.replace(
                arrival,
                number=200_000 + len(equals),
                at_s=arrival.at_s
                + own.choice((0.0, own.uniform(0.0, 2.0), own.uniform(0.0, 60.0))),
                deadline_s=own.choice((300.0, 600.0, own.uniform(0.5, 60.0))),
                leaving=own.choices(list(Leaving), (12, 2, 1, 1, 1))[0],
                leaves_after_s=own.choice((0.0, own.uniform(0.0, 20.0), own.uniform(0.0, 200.0))),
            )
            equals.append(equal)
    in_time = (each for each in (*arrivals, *equals) if each.at_s < until_s)
    return sorted(in_time, key=lambda each: each.at_s)


def _service_s(model: ModelPlan) -> float:
    """How long an order keeps all workers of a model busy, about."""
    steps = 2 * ANSWER_TOKENS / (model.step_tokens_max + 1)
    prompts_s = ANSWER_TOKENS / model.prompt_tokens_per_s
    return (steps * model.step_s / model.batch_size + prompts_s) / len(model.slots)


def _poisons(own: random.Random, models: tuple[ModelPlan, ...]) -> list[Script]:
    return [
        Script(
            f"poison{number}",
            own.choice((5, 40)),
            40,
            poison=own.choice(list(Poison)),
            poison_at=own.choice((0, 0, 3, 30)),
        )
        for number in range(own.choice((1, 1, 1, 2)))
    ]


def _arrival(
    own: random.Random, number: int, at_s: float, model: ModelPlan, poisons: list[Script]
) -> Arrival:
    if poisons and own.random() < 0.02:
        scripts = [own.choice(poisons)]
        choices = 1
    else:
        prompts = own.choice((1, 1, 1, 1, 2))
        scripts = [_script(own, f"p{number}.{prompt}", model) for prompt in range(prompts)]
        choices = own.choice((1, 1, 1, 1, 3))
    leaving = own.choices(list(Leaving), (12, 2, 1, 1, 1))[0]
    deadline_s = own.choice((300.0, 300.0, 600.0, own.uniform(0.5, 60.0)))
    return Arrival(
        number=number,
        at_s=at_s,
        model=model.name,
        scripts=tuple(scripts),
        choices=choices,
        is_streamed=own.random() < 0.6,
        include_usage=own.random() < 0.5,
        deadline_s=deadline_s,
        first_token_s=own.choice((300.0, 300.0, 60.0)),
        stall_s=own.choice((120.0, 120.0, 30.0)),
        leaving=leaving,
        leaves_after_s=own.choice((0.0, own.uniform(0.0, 20.0), own.uniform(0.0, 200.0))),
        leaves_at_write=own.choice((1, 2, 5)),
        status_after_s=own.choice((0.0, 0.0, 0.01, 2.0)),
    )


def _script(own: random.Random, prompt: str, model: ModelPlan) -> Script:
    is_long = own.random() < 0.05
    failure = None
    if own.random() < 0.03:
        failure = own.choice((ErrorCode.CONTEXT_LENGTH_EXCEEDED, ErrorCode.ENGINE_FAILED))
    return Script(
        prompt=prompt,
        # The longest takes about 100 s to read.
        prompt_tokens=int(own.uniform(10, 100) * (model.prompt_tokens_per_s if is_long else 1)),
        tokens=own.choice((1, 5, 20, 20, 60)),
        finish=own.choice(("stop", "length")),
        failure=failure,
        fails_at=own.choice((0, 0, 2)) if failure is ErrorCode.ENGINE_FAILED else 0,
    )


def _calm_arrivals(seed: int, models: tuple[ModelPlan, ...], at_s: float) -> list[Arrival]:
    own = chance(seed, "calm arrivals")
    return [
        Arrival(
            number=100_000 + 10 * at + repeated,
            at_s=at_s + repeated,
            model=model.name,
            scripts=(Script(f"calm{at}.{repeated}", 20, own.choice((1, 10))),),
            choices=1,
            is_streamed=own.random() < 0.5,
            include_usage=True,
            deadline_s=CALM_S,
            first_token_s=CALM_S,
            stall_s=CALM_S,
            is_calm=True,
        )
        for at, model in enumerate(models)
        for repeated in range(len(model.slots))
    ]


def _acts(
    seed: int,
    weather: Weather,
    models: tuple[ModelPlan, ...],
    worker: WorkerConfig,
    until_s: float,
) -> tuple[Act, ...]:
    own = chance(seed, "acts")
    slots = [slot for model in models for slot in model.slots]
    deeds = [Deed.RESTART, Deed.RESTART, Deed.STOP, Deed.RESET]
    if weather is not Weather.FAIR:
        deeds += [Deed.KILL, Deed.KILL, Deed.KILL, Deed.TERM, Deed.SUSPEND, Deed.FREEZE]
    every_s = own.choice((20.0, 60.0, 300.0))
    acts: list[Act] = []
    at_s = own.expovariate(1 / every_s)
    while at_s < until_s:
        lasts_s = own.choice((own.uniform(0.0, 2 * worker.beat_s), own.uniform(0.0, 120.0)))
        acts.append(Act(at_s, own.choice(deeds), own.choice(slots), lasts_s))
        at_s += own.expovariate(1 / every_s)
    # Nobody forgets a slot for ever.
    acts += [Act(at_s, Deed.RESET, slot) for slot in slots for at_s in _now_and_then(own, until_s)]
    acts += [Act(at_s, Deed.RESTART, slot) for slot in slots for at_s in _rarely(own, until_s)]
    in_time = (act for act in acts if act.at_s + act.lasts_s < until_s)
    return tuple(sorted(in_time, key=lambda act: act.at_s))


def _now_and_then(own: random.Random, until_s: float) -> list[float]:
    return [own.uniform(at_s, at_s + 120) for at_s in range(100, int(until_s), 240)]


def _rarely(own: random.Random, until_s: float) -> list[float]:
    return [own.uniform(at_s, at_s + 300) for at_s in range(200, int(until_s), 900)]
