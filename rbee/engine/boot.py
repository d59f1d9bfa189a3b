"""How a worker process begins: behind a gate, safe to orphan, with what it may know.

Nothing secret stands in argv or the environment. The supervisor passes two descriptors:

    boot   a pipe that holds one JSON object, `BootDocument`, up to its end. The supervisor
           writes it when the process may go on: that is the gate.
    life   a pipe that is never written to. Its end means that the supervisor is gone.
"""

import faulthandler
import functools
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from rbee.engine.engine import Engine
from rbee.engine.link_thread import LinkThread
from rbee.engine.loop import WorkerLoop
from rbee.engine.own_user import OwnUser, become
from rbee.errors import EngineError, ExitCode
from rbee.hardening import (
    die_with_parent,
    forbid_core_files,
    forbid_new_rights,
    forbid_reaching_others,
)
from rbee.signal_mask import let_through

BOOT_BYTES_MAX: Final = 4096

# The kernel's out-of-memory killer is to take a worker before the supervisor.
OOM_SCORE_ADJ: Final = 500
_OOM_SCORE_ADJ_MAX: Final = 1000


class BootDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the supervisor tells a worker before it may speak."""

    worker_id: str
    link_path: str
    secret_hex: str
    user: OwnUser | None = None  # whom it is to become


def main(boot_fd: int, life_fd: int) -> int:
    """Run one worker.

    Returns:
      The exit code, of `ExitCode`.
    """
    faulthandler.enable()
    _secure_process()
    raw = _read_to_end(boot_fd)
    if not raw:  # the supervisor went away, or gave up on us, before it opened the gate
        return ExitCode.ORPHANED
    document = msgspec.json.decode(raw, type=BootDocument)
    if _is_gone(Path(document.link_path)):
        # ZeroMQ would try for ever; the supervisor starts another worker, with another socket.
        print("the supervisor's socket is gone", file=sys.stderr)  # noqa: T201
        return ExitCode.OS_ERROR
    link = LinkThread(Path(document.link_path), life_fd)
    link.start()
    engine_as_user = functools.partial(_engine_as, document.user)
    return WorkerLoop(link, bytes.fromhex(document.secret_hex), engine_as_user).run()


def _engine_as(user: OwnUser | None, name: str) -> Engine:
    """`engine_for`, as that user from here on: the engine's library never sees more rights.

    By then the link is connected, which that user may not do.

    Raises:
      EngineError: as of `become` and `engine_for`.
    """
    if user is not None:
        become(user)
    return engine_for(name)


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:  # whoever connects will say what is wrong with it
        pass
    return False


def engine_for(name: str) -> Engine:
    """The adapter of that name; its library is imported here and not before.

    Raises:
      EngineError: the library is not installed, or not for this machine.
    """
    try:
        match name:
            case "synthetic":
                from rbee.engine.synthetic import SyntheticEngine  # noqa: PLC0415

                return SyntheticEngine()
            case "llamacpp":
                from rbee.engine.llamacpp import LlamaCppEngine  # noqa: PLC0415

                return LlamaCppEngine()
            case "exllamav2":
                from rbee.engine.exllamav2 import ExLlamaV2Engine  # noqa: PLC0415

                return ExLlamaV2Engine()
    except ImportError as error:
        raise EngineError(f"engine {name} cannot be imported: {error}", ExitCode.CONFIG) from error
    raise EngineError(f"there is no engine {name!r}", ExitCode.CONFIG)


def _secure_process() -> None:
    """Die with the supervisor, leave no core file, take no new rights, leave others alone.

    To be called before there is a second thread.
    """
    die_with_parent()  # acts when the supervisor's main thread ends, which has spawned us
    forbid_new_rights()
    forbid_reaching_others()  # where the kernel cannot, `rbee doctor` says so
    forbid_core_files()
    os.umask(0o077)
    let_through()  # the supervisor holds them back for itself
    # Raising one's own score needs no right; lowering an inherited one does.
    score = Path("/proc/self/oom_score_adj")
    inherited = int(score.read_text("ascii"))
    score.write_text(str(max(OOM_SCORE_ADJ, min(_OOM_SCORE_ADJ_MAX, inherited + 100))), "ascii")


def _read_to_end(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read(BOOT_BYTES_MAX)
