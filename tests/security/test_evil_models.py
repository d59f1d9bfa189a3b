"""Model files that somebody made to harm: the worker says no in time, and nobody else notices."""

import random
import struct
import time
from pathlib import Path

from tests.e2e.server import Server, serving, synthetic_config, wait_until
from tests.engine.tiny_gguf import write_tiny_gguf

# Goal: a verdict on each within so long. They start together on a busy machine.
VERDICT_S_MAX = 30.0

HUGE_ARRAY = b"GGUF" + struct.pack("<IQQQ3sIIQ", 3, 0, 1, 3, b"a.b", 9, 4, 1 << 60)


def evil_models(folder: Path) -> dict[str, Path]:
    """Files that are no models, by what is wrong with them."""
    whole = write_tiny_gguf(folder / "whole.gguf").read_bytes()
    chance = random.Random(1)
    header = bytearray(whole)
    for _ in range(200):
        header[chance.randrange(4, 6000)] = chance.randrange(256)
    wrong_eos = whole.replace(
        b"tokenizer.ggml.eos_token_id" + struct.pack("<I", 4), b"tokenizer.ggml.eos_token_id????"
    )
    files = {
        "an-array-of-2-to-the-60": HUGE_ARRAY + bytes(400),
        "cut-in-half": whole[: len(whole) // 2],
        "noise-in-its-header": bytes(header),
        "an-unknown-kind-of-value": wrong_eos,
        "random": b"GGUF" + chance.randbytes(5000),
    }
    for name, raw in files.items():
        (folder / f"{name}.gguf").write_bytes(raw)
    return {name: folder / f"{name}.gguf" for name in files}


def verdicts(server: Server, names: list[str]) -> list[str]:
    """Why the slots of those models stay empty, as far as that is settled."""
    slots = [each for each in server.workers() if each["model"] in names]
    return [each["last_failure"] for each in slots if each["state"] == "failed"]


def test_evil_models_are_refused_in_time_and_harm_nobody(tmp_path: Path) -> None:
    models = evil_models(tmp_path)
    tables = "".join(
        f'[[model]]\nref = "file:{path}"\nname = "{name}"\nengine = "llamacpp"\n'
        for name, path in models.items()
    )
    begun_s = time.monotonic()
    with serving(tmp_path, synthetic_config() + tables) as server:
        assert server.chat("[tokens=3]").status_code == 200
        wait_until(
            lambda: len(verdicts(server, list(models))) == len(models), VERDICT_S_MAX, "verdicts"
        )
        assert time.monotonic() - begun_s <= VERDICT_S_MAX
        assert server.chat("[tokens=3]").status_code == 200
        for name in models:
            answer = server.chat("hi", model=name)
            assert answer.status_code == 503
            assert str(tmp_path) not in answer.text
        assert server.get("/health/live").status_code == 200
        assert not [event for event in server.events if event["event"] == "supervisor_failed"]
