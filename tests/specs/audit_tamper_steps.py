"""The steps of `specs/330-audit.feature` in which somebody changes the files."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from rbee.audit.files import log_files
from rbee.audit.place import place_in
from rbee.store import open_store
from tests.audit.log import entries, raw_lines, write_log
from tests.audit.test_tamper import rewrite, sizes_of, spread
from tests.e2e.server import Server
from tests.specs.audit_steps import (
    SECRET,
    ask,
    config,
    found,
    given,
    place,
    state_dir,
    when_answered,
    when_stopped,
)
from tests.specs.runner import Steps
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step


@functools.cache
def finished_log() -> Path:
    """A log of several files by a real server, made once; an older state of it lies beside it."""
    directory = Path(tempfile.mkdtemp(prefix="rbee-audit-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    store = open_store(place_in(directory / "state").store)
    assert store is not None
    store.close()
    for name, requests in (("then", 12), ("now", 6)):
        server = Server(directory, config(directory, "file_bytes_max = 4096"))
        try:
            server.ready()
            for _ in range(requests):
                ask(server)
        finally:
            server.close()
        shutil.copytree(directory / "state", directory / name)
    log = place_in(directory / "now")
    assert len(log_files(log.folder)) >= 3
    assert found(log.folder) is None
    return directory


@step(r"an audit log of several files, whose server was stopped")
def given_finished(world: World) -> None:
    shutil.copytree(finished_log() / "now", state_dir(world))


def write(world: World, lines: list[bytes]) -> None:
    spread(place(world), lines, sizes_of(place(world)))


@step(r"somebody flips a bit of entry (\d+)")
def when_flipped(world: World, seq: str) -> None:
    lines = raw_lines(place(world))
    changed = lines[int(seq) - 1].replace(b"synthetic", b"rynthetic")  # s and r differ by a bit
    assert changed != lines[int(seq) - 1]
    write(world, [*lines[: int(seq) - 1], changed, *lines[int(seq) :]])


@step(r"somebody deletes entry (\d+)")
def when_deleted(world: World, seq: str) -> None:
    lines = raw_lines(place(world))
    write(world, [*lines[: int(seq) - 1], *lines[int(seq) :]])


@step(r"somebody inserts a copy of entry (\d+) before entry (\d+)")
def when_inserted(world: World, copied: str, seq: str) -> None:
    lines = raw_lines(place(world))
    lines.insert(int(seq) - 1, lines[int(copied) - 1])
    write(world, lines)


@step(r"somebody swaps entry (\d+) and entry (\d+)")
def when_swapped(world: World, one: str, other: str) -> None:
    lines = raw_lines(place(world))
    first, second = int(one) - 1, int(other) - 1
    lines[first], lines[second] = lines[second], lines[first]
    write(world, lines)


@step(r"somebody cuts off the last 2 entries")
def when_cut(world: World) -> None:
    write(world, raw_lines(place(world))[:-2])


@step(r"somebody puts another log in place of the first file")
def when_replaced(world: World) -> None:
    forged = write_log(world.directory / "forged", sizes_of(place(world))[0])
    shutil.copy(log_files(forged.folder)[0], log_files(place(world).folder)[0])


@step(r"somebody puts all files back to an older state")
def when_rolled_back(world: World) -> None:
    shutil.rmtree(place(world).folder)
    shutil.copytree(finished_log() / "then" / "audit", place(world).folder)


@step(r"somebody puts all files and the anchor back to an older state")
def when_rolled_back_with_anchor(world: World) -> None:
    when_rolled_back(world)
    shutil.copy(place_in(finished_log() / "then").anchor, place(world).anchor)


@step(r"the first bad entry is found to be (?:entry )?(.+), since it is (\w+)")
def then_first_bad(world: World, entry: str, kind: str) -> None:
    now = entries(place_in(finished_log() / "now")) if entry.startswith(("o", "a")) else []
    match entry:
        case "one before last":
            seq = now[-1]["seq"] - 1
        case "of the second file":
            seq = sizes_of(place_in(finished_log() / "now"))[0] + 1
        case "after the old ones":
            seq = entries(place_in(finished_log() / "then"))[-1]["seq"] + 1
        case _:
            seq = int(entry)
    secret = world.directory / "secret"
    flaw = found(place(world).folder, *(["--secret-file", secret] if secret.exists() else []))
    assert flaw is not None
    assert (flaw["seq"], flaw["kind"]) == (seq, kind), flaw


@step(r"a sealed audit log, whose server was stopped")
def given_sealed(world: World) -> None:
    secret = world.directory / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    given(world, f'secret_file = "{secret}"')
    when_answered(world, "3")
    when_stopped(world)
    assert found(place(world).folder, "--secret-file", secret) is None


@step(r"somebody rewrites it from entry 4 on, with hashes that fit, and takes the anchor away")
def when_rewritten(world: World) -> None:
    changed = rewrite(raw_lines(place(world)), 3, b"a key of his own", b'"synthetic"', b'"another"')
    write(world, changed)
    place(world).anchor.unlink()
