"""Scenarios in which a worker goes wrong by itself."""

from dataclasses import replace
from typing import Final

from rbee.chaos import engine_faults as faults
from rbee.chaos.clients import Load
from rbee.chaos.preparations import truncate_bee_tiny
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.setting import Setting

FAILED: Final = frozenset({"worker_failed"})
GIVEN_UP: Final = frozenset({"worker_failed", "slot_failed", "not_serving"})


def _waiting(fault: str, model: str = "") -> Setting:
    """A fault that lies in wait for its prompt."""
    return Setting(synthetic=f'{fault}\nfault_prompt = "{faults.PROMPT}"', model=model)


def _guilty(name: str, about: str, fault: str, *, model: str = "") -> Scenario:
    return Scenario(
        name=name,
        fault=faults.guilty(about),
        setting=_waiting(fault, model),
        expected=Expected(errors=FAILED | {"request_quarantined"}, restarts=(2, 4)),
    )


def _never_serves(name: str, about: str, cause: str, failures: int, second: str) -> Scenario:
    lines = f'ref = "synthetic"\n[model.synthetic]\n{second}'
    return Scenario(
        name=name,
        fault=faults.never_serves(about, cause, failures),
        setting=Setting(second=lines, restart="failures_max = 2", worker="load_stall_s = 2"),
        expected=Expected(errors=GIVEN_UP, healed_s=30),
    )


def _quick(scenario: Scenario) -> Scenario:
    return replace(scenario, is_quick=True)


OF_ENGINES: Final = (
    _guilty(
        "worker-exits-0-unasked", "A request makes its worker exit with 0.",
        'fault = "exit"\nexit_code = 0',
    ),
    _guilty(
        "worker-crashes-on-a-request", "A request makes its worker crash (SIGSEGV).",
        'fault = "crash"',
    ),
    _guilty(
        "worker-panics", "A library panics: an exception that is no Exception.", 'fault = "panic"'
    ),
    _guilty(
        "worker-out-of-memory", "A request makes the engine run out of memory.",
        'fault = "out_of_memory"',
    ),
    Scenario(
        name="workers-out-of-memory-by-three-requests",
        fault=faults.use_up_memory,
        setting=_waiting('fault = "out_of_memory"'),
        expected=Expected(errors=FAILED | {"request_quarantined"}, restarts=(6, 8)),
    ),
    _quick(_guilty(
        "worker-over-its-memory-limit", "A request makes its worker take more than its limit.",
        'fault = "hog_memory"\nhog_bytes = 500_000_000', model="memory_bytes_max = 268435456",
    )),
    Scenario(
        name="worker-leaks-descriptors",
        fault=faults.harmless("A worker opens files until it gets no more."),
        setting=_waiting('fault = "leak_descriptors"'),
        # What it needs to serve and to beat, it has open since its start: it goes on.
    ),
    _guilty(
        "worker-beats-without-tokens", "An engine step never returns; the beats go on.",
        'fault = "hang_in_step"',
    ),
    _guilty(
        "worker-livelocked", "Engine steps go on and bring no token.",
        'fault = "silent_step"\nfault_after_steps = 5',
    ),
    _quick(_guilty(
        "worker-deadlocked", "The worker waits for itself, and holds Python's lock.",
        'fault = "hang_with_gil"',
    )),
    _guilty(
        "worker-in-a-busy-loop", "The worker computes for ever, and holds Python's lock.",
        'fault = "spin_with_gil"',
    ),
    _quick(_guilty(
        "link-garbage", "A worker sends bytes that are no message.", 'fault = "garbage"'
    )),
    _guilty(
        "link-oversize", "A worker sends a message that is too long.", 'fault = "oversize"'
    ),
    _quick(_guilty("link-token-twice", "A worker sends its tokens twice.", 'fault = "repeat"')),
    _guilty(
        "link-answer-unasked", "A worker answers a request that is not open.",
        'fault = "unasked"',
    ),
    Scenario(
        name="link-flood",
        fault=faults.flood,
        setting=_waiting('fault = "flood"'),
        # The worker is drained at the end, and steps slowly under its own flood.
        expected=Expected(restarts=(0, 2), healed_s=30),
    ),
    Scenario(
        name="worker-stops-to-beat",
        fault=faults.grow_silent,
        setting=_waiting('fault = "no_beats"'),
        expected=Expected(errors=FAILED, restarts=(1, 1)),
    ),
    Scenario(
        name="worker-very-slow",
        fault=faults.watch,
        setting=Setting(tokens_per_s=0.5),
        load=Load(clients=4, tokens=(2, 4)),
    ),
    Scenario(
        name="worker-talks-much",
        fault=faults.harmless("A worker prints far more than its pipe holds."),
        setting=_waiting('fault = "chatter"'),
    ),
    Scenario(
        name="worker-fork-bomb",
        fault=faults.harmless("A worker starts processes until it may start no more."),
        setting=_waiting('fault = "fork_bomb"', model="tasks_max = 50"),
        needs=("root",),
    ),
    Scenario(
        name="worker-ignores-all",
        fault=faults.see_ignored,
        setting=Setting(
            synthetic='fault = "ignore_all"', worker="term_after_s = 0.5\nkill_after_s = 1"
        ),
        expected=Expected(end_s=4),
        is_quick=True,
    ),
    Scenario(
        name="worker-leaves-a-daemon",
        fault=faults.kill_parent,
        setting=Setting(
            synthetic='fault = "stray_child"', worker="term_after_s = 0.5\nkill_after_s = 1"
        ),
        expected=Expected(errors=FAILED, restarts=(1, 1), end_s=4),
        is_quick=True,
    ),
    _quick(_never_serves(
        "model-exits-at-once", "A second model's worker exits with 1 while it loads.",
        "load_failure", 3, 'fault = "exit_in_load"',
    )),
    _never_serves(
        "model-badly-configured", "A second model's worker exits with 78 while it loads.",
        "bad_config", 1, 'fault = "exit_in_load"\nexit_code = 78',
    ),
    _never_serves(
        "model-does-not-fit", "A second model does not fit into memory.",
        "out_of_memory", 1, 'fault = "out_of_memory"',
    ),
    _never_serves(
        "model-never-ready", "A second model loads for ever, without progress.",
        "load_failure", 3, 'fault = "stuck_load"',
    ),
    Scenario(
        name="model-truncated",
        fault=faults.never_serves("Half of a model's file is missing.", "load_failure", 1),
        setting=Setting(second='ref = "file:{folder}/half.gguf"', prepare=truncate_bee_tiny),
        expected=Expected(errors=GIVEN_UP, healed_s=30),
    ),
)  # fmt: skip
