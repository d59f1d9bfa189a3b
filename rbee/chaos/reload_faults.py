"""Faults of what the supervisor reads again at SIGHUP: the TLS certificate and key, the secret of
the audit log.

Rule: a reload that is refused is told once, and changes nothing; the same files, mended, are taken.
"""

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rbee.chaos.answers import End
from rbee.chaos.preparations import (
    AUDIT_SECRET,
    CERTIFICATE,
    TLS_KEY,
    make_certificate,
    write_secret,
)
from rbee.chaos.scene import Scene
from rbee.chaos.server import DrillError

# One reload a second at most, and files are read in a thread.
RELOAD_S: Final = 10.0

Break = Callable[[Path], None]


async def lose_secrets(scene: Scene) -> None:
    """SIGHUP while the TLS key or the audit secret is gone, or open to others."""
    await _try_all(
        scene,
        [
            (name, harm)
            for name in (TLS_KEY, AUDIT_SECRET)
            for harm in (Path.unlink, lambda path: path.chmod(0o640))
        ],
    )


async def break_files(scene: Scene) -> None:
    """SIGHUP while files that it reads are broken, and rbee.toml, which it does not read."""
    (scene.server.folder / "rbee.toml").write_text("nonsense [")
    await _try_all(
        scene,
        [
            (CERTIFICATE, _cut_off), (TLS_KEY, _cut_off), (AUDIT_SECRET, _cut_off),
            (CERTIFICATE, _replace_alone), (TLS_KEY, _write_nonsense),
            (AUDIT_SECRET, _write_nonsense),
        ],
    )  # fmt: skip


async def _try_all(scene: Scene, harms: list[tuple[str, Break]]) -> None:
    await scene.moment()
    scene.chance.shuffle(harms)
    for number, (name, harm) in enumerate(harms, 1):
        with _harmed(scene.server.folder / name, harm):
            scene.server.signal(signal.SIGHUP)
            await scene.server.wait_event("config_rejected", RELOAD_S, number)
        await _ask_anew(scene)
    if scene.server.count("config_reloaded"):
        raise DrillError("a reload was taken that had to be refused")
    scene.server.signal(signal.SIGHUP)
    reloaded = await scene.server.wait_event("config_reloaded", RELOAD_S)
    if reloaded["changed"]:
        raise DrillError(f"a refused reload has changed {reloaded['changed']}")
    await _ask_anew(scene)
    rejected = scene.server.count("config_rejected")
    if rejected != len(harms):
        raise DrillError(f"{len(harms)} reloads were refused, and {rejected} told")
    scene.strike()
    scene.notes.append(f"{rejected} reloads refused")


async def _ask_anew(scene: Scene) -> None:
    """Be served on a new connection, under the certificate of the begin."""
    judged = await scene.ask("after a reload", tokens=5)
    if judged.end is not End.SERVED:
        raise DrillError(f"a request after a reload ended {judged.end.value} ({judged.what})")


@contextmanager
def _harmed(path: Path, harm: Break) -> Iterator[None]:
    before = path.read_bytes()
    harm(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        write_secret(path, before)


def _cut_off(path: Path) -> None:
    """A part of a PEM file, and none of a secret."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if path.suffix else b"")


def _write_nonsense(path: Path) -> None:
    path.write_bytes(b"\0\r\n" + secrets.token_bytes(100))


def _replace_alone(path: Path) -> None:
    """A good certificate, of another key."""
    make_certificate(path, path.with_name("other.pem"))
