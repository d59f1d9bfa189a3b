"""Has one system call of a running `rbee serve` fail while somebody asks something of it: a key,
a record, a reload. Holds it to all or nothing, and to serving on.
"""

import signal
import time
from pathlib import Path
from typing import Any, Final

import httpx2

from rbee.audit.place import place_in
from rbee.store import FILE_NAME, KeyRow, open_store
from rbee.supervisor.access.hashing import fits
from rbee.supervisor.access.minting import KeyOrder, mint
from rbee.supervisor.access.principal import Role
from tests.e2e.books import Books, flaws, read_books
from tests.e2e.box import HEAL_S, Box
from tests.e2e.injection import REFUSED, STRACE_ALL, Outcome, Point
from tests.e2e.server import wait_until

# In each phase, what may be asked for.
DEEDS: Final = {
    "store": ("start", "make", "rotate", "revoke", "notice"),
    "audit": ("record", "begin a file"),
    "reload": ("read", "record"),
}

_ENDS_WELL: Final = frozenset({200, 201})
_REFUSES: Final = {"store_unavailable", "audit_unavailable"}


def attempt_deed(box: Box, point: Point) -> Outcome:
    """Try one point on a server that serves, and that must serve again afterwards."""
    outcome, trace = Outcome(point), box.folder / "trace"
    trace.unlink(missing_ok=True)
    if point.deed != "start":
        box.let_trace(point)
    server, said = box.server, len(box.server.events)
    try:
        act = _reload if point.phase == "reload" else _change
        if point.deed == "start":
            act = _start
        outcome.problems += act(box, point, trace, outcome)
        box.make_at_last()
        with box.client_of(box.admin) as client:
            body = {"model": "synthetic", "prompt": "count", "max_tokens": 2}
            answer = client.post("/v1/completions", json=body)
            if answer.status_code != 200:
                outcome.problems.append(f"a completion is answered by {answer.text}")
    except (httpx2.HTTPError, AssertionError) as error:
        outcome.problems.append(f"{type(error).__name__}: {error}")
    if trace.exists():
        outcome.was_hit = "(INJECTED)" in trace.read_text("utf-8", "replace")
    outcome.problems += _words(box.server.events[said if box.server is server else 0 :])
    outcome.problems += flaws(box.state_dir, box.seals, box.before)
    outcome.log = box.server.log if outcome.problems else ""
    return outcome


def _words(events: list[dict[str, Any]]) -> list[str]:
    return [
        f"{each['event']}: {each.get('exception') or each.get('line')}"
        for each in events
        if "exception" in each or each["event"] == "not_json"
    ]


# --- keys, and their records


def _start(box: Box, point: Point, trace: Path, outcome: Outcome) -> list[str]:
    """Stop it, and start it where there are keys; it must know them, or end and leave them."""
    before = box.before = read_books(box.state_dir)
    box.client.close()
    found = [f"ended with {code}"] if (code := box.server.stop()) else []
    box.server.close()
    code = box.start([*STRACE_ALL, *point.options(trace), *box.paths(point)])
    outcome.how = "serves" if code is None else f"ends, {code}"
    if code is not None:
        box.server.close()
        found += [] if code in REFUSED else [f"exit code {code}"]
        assert box.start() is None, box.server.log

    def knows_all() -> bool:
        return {each["id"] for each in box.listed()} == set(before.rows)

    wait_until(knows_all, HEAL_S, "it knows the keys that there were")
    return found


def _change(box: Box, point: Point, trace: Path, outcome: Outcome) -> list[str]:
    """Have it make, rotate or revoke a key."""
    deed = point.deed if point.deed in {"rotate", "revoke", "notice"} else "make"
    old = box.make_at_last() if deed in {"rotate", "revoke"} else ""
    if point.deed == "begin a file":
        box.fill()
    before = box.before = read_books(box.state_dir)
    if deed == "notice":
        return _notice(box, point, trace)
    with box.failing(point, trace):
        answer = {"make": box.make, "rotate": box.rotate, "revoke": box.revoke}[deed](old)
    outcome.how = f"{answer.status_code}"
    after = read_books(box.state_dir)
    if answer.status_code not in _ENDS_WELL:
        code = answer.json()["error"]["code"]
        outcome.how += f" {code}"
        found = [] if code in _REFUSES else [f"answered by {answer.text}"]
        return found if after.rows == before.rows else [*found, "refused, and done all the same"]
    found = _retired(after, old) if old else []
    if deed != "revoke":
        made = answer.json()
        row = after.rows.get(made["id"])
        if row is None or not fits(made["key"], row.hash):
            found.append("the key that was made is not in the store")
    if {each["id"] for each in box.listed()} != set(after.rows):
        found.append("other keys are listed than there are")
    return found


def _retired(after: Books, old: str) -> list[str]:
    found = []
    if after.is_good(old, time.time() + 1):
        found.append("the old key is good")
    if after.told("key.revoked", old) != 1:
        found.append("the revocation is in no entry")
    return found


def _notice(box: Box, point: Point, trace: Path) -> list[str]:
    """Change the store as a command does; it must be seen, and recorded once."""
    key, row = mint(KeyOrder(role=Role.USER), int(time.time()))
    with box.failing(point, trace):
        _add(box.state_dir, row)
        wait_until(lambda: _is_told(box, row.id), HEAL_S, "the server sees what a command did")
    with box.client_of(key.text) as client:
        if (answer := client.get("/v1/models")).status_code != 200:
            return [f"the new key is answered by {answer.text}"]
    return []


def _add(state_dir: Path, row: KeyRow) -> None:
    store = open_store(state_dir / FILE_NAME, create=False)
    assert store is not None
    with store:
        store.keys.add(row)


def _is_told(box: Box, key: str) -> bool:
    folder = place_in(box.state_dir).folder
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return any('"key.created"' in line and f'"{key}"' in line for line in lines)


# --- files that are read again


def _reload(box: Box, point: Point, trace: Path, outcome: Outcome) -> list[str]:
    box.before = read_books(box.state_dir)
    said = len(box.server.events)
    box.renew()
    with box.failing(point, trace):
        told = _hang_up(box)
    outcome.how = told["event"]
    is_done = told["event"] == "config_reloaded"
    held = box.turn if is_done else box.turn - 1
    found = [f"{told['event']}: {each}" for each in box.unlike(held)]
    if not is_done:
        outcome.how += f": {told['problem']}"
        told = _hang_up(box)
        found += [f"then {told['event']}: {each}" for each in box.unlike(box.turn)]

    def is_sealed_anew() -> bool:
        return any(each["event"] == "audit_rekeyed" for each in box.server.events[said:])

    wait_until(is_sealed_anew, HEAL_S, "the log is sealed with the new secret")
    return found


def _hang_up(box: Box) -> dict[str, Any]:
    said = len(box.server.events)

    def told() -> list[dict[str, Any]]:
        names = {"config_reloaded", "config_rejected"}
        return [each for each in box.server.events[said:] if each["event"] in names]

    box.server.signal(signal.SIGHUP)
    wait_until(lambda: bool(told()), HEAL_S, "an answer to SIGHUP")
    return told()[0]
