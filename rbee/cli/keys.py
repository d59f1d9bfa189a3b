"""``rbee keys`` and ``rbee init``: API keys in the store, whether a server runs or not.

Rule: a key is shown once, on stdout, or written to a file that is ours alone. It is in no argument,
      no environment and no log.
"""

import contextlib
import json as json_text
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from rbee.cli.address import ADMIN_KEY_FILE
from rbee.cli.command_records import Records, records_of
from rbee.cli.endings import OutputError, UsageError
from rbee.cli.key_store import state_dir_for
from rbee.cli.terminal import columns, printable_line, put, say

if TYPE_CHECKING:
    from rbee.audit.events import KeyCreated, KeyRevoked
    from rbee.store import KeyRow, Store
    from rbee.supervisor.access.api_key import NewKey
    from rbee.supervisor.access.minting import KeyOrder

RoleName = Literal["viewer", "user", "operator", "admin"]
PriorityName = Literal["high", "normal", "low"]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_BY_COMMAND: Final = "by command"
_NOT_RECORDED: Final = "its making was not recorded"
_NOT_SHOWN: Final = "it could not be handed out"
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Config = Annotated[Path | None, Parameter(help="The configuration; else ./rbee.toml or defaults.")]
StateDir = Annotated[Path | None, Parameter(help="The store's folder; else as configured.")]
NewFile = Annotated[
    Path | None, Parameter(help="Write the key to this new file, with mode 0600; show it nowhere.")
]


def create(  # noqa: PLR0913  # all that makes a key
    *,
    role: RoleName,
    name: str = "",
    model: Annotated[list[str] | None, Parameter(name=["--model", "-m"])] = None,
    expires: str | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    concurrent_requests: int | None = None,
    priority: PriorityName | None = None,
    key_file: NewFile = None,
    config: Config = None,
    state_dir: StateDir = None,
    json: bool = False,
) -> int:
    """Make a key, and show it, this once.

    A server that runs takes it within half a second. From the first key on, it asks for one.

    Args:
      role: viewer sees models and state; user asks for tokens; operator restarts workers; admin
        makes keys. Each may do what those before may.
      name: For you to know it by.
      model: A model that it may ask for, by its name; may be given more than once; else all.
      expires: After a time such as 90d or 12h, or at one such as 2027-01-31T00:00:00Z; else never.
      requests_per_minute: How many it may make.
      tokens_per_minute: How many it may use, of prompts and answers together.
      concurrent_requests: How many may run at once.
      priority: Where requests wait, those of high keys go first and those of low ones last, but
        for a share of the turns that each class has; else normal.
      json: Print JSON, for programs.
    """
    from rbee.supervisor.access.minting import mint

    now_s = int(time.time())
    span_s = None if expires is None else _seconds(expires)
    order = _order(
        {
            "role": role,
            "name": name,
            "models": model,
            "expires": expires if span_s is None else None,
            "expires_in_s": span_s,
            "limits": {
                "requests_per_minute": requests_per_minute,
                "tokens_per_minute": tokens_per_minute,
                "concurrent_requests": concurrent_requests,
                "priority": priority,
            },
        },
        now_s,
    )
    with _store(config, state_dir) as store, _records(config, state_dir) as records:
        key, row = mint(order, now_s)
        with _handed_out(key, key_file), _kept(store, records, row):
            _show_new(key, row, key_file, json)
    return 0


def list_keys(*, config: Config = None, state_dir: StateDir = None, json: bool = False) -> int:
    """Show all keys, without what opens anything.

    Args:
      json: Print JSON, for programs.
    """
    with _store(config, state_dir) as store:
        rows = store.keys.all()
    if json:
        put(json_text.dumps({"keys": [_shown(row) for row in rows]}))
        return 0
    now_s = time.time()
    table: list[tuple[str, ...]] = [
        ("ID", "STATE", "ROLE", "NAME", "MODELS", "LIMITS", "CREATED", "EXPIRES", "MARK")
    ]
    table += [_cells(row, now_s) for row in rows]
    put(columns(table) if rows else "there are no keys; make one with `rbee init`")
    return 0


def revoke(
    key: str,
    /,
    *,
    reason: str = _BY_COMMAND,
    config: Config = None,
    state_dir: StateDir = None,
) -> int:
    """Revoke a key. A server that runs refuses it within a second, and ends what runs for it.

    Args:
      key: Its id, as `rbee keys list` shows it; the part between the underscores of a key.
      reason: For the records.
    """
    from rbee.supervisor.access.minting import REASON_LETTERS_MAX, revoked

    if len(reason) > REASON_LETTERS_MAX or not reason.isprintable():
        raise UsageError(f"--reason must have at most {REASON_LETTERS_MAX} characters")
    with _store(config, state_dir) as store, _records(config, state_dir) as records:
        row = _find(store, key)
        if row.revoked_s is not None:
            put(f"{key}: was revoked before")
            return 0
        now_s = int(time.time())
        records.do([revoked(row, reason)], lambda: store.keys.revoke(key, now_s, reason))
    put(f"{key}: revoked")
    return 0


def rotate(  # noqa: PLR0913  # what may be said on the command line
    key: str,
    /,
    *,
    grace: str = "0s",
    key_file: NewFile = None,
    config: Config = None,
    state_dir: StateDir = None,
    json: bool = False,
) -> int:
    """Make a key in the place of another, with the same rights, and show it, this once.

    Args:
      key: The id of the old one.
      grace: For how long the old one stays good, such as 24h.
      json: Print JSON, for programs.
    """
    from rbee.supervisor.access.minting import GRACE_S_MAX, is_good, mint_successor

    grace_s = _seconds(grace)
    if grace_s is None or grace_s > GRACE_S_MAX:
        raise UsageError(f"--grace must be like 90s, 24h or 7d, and at most {GRACE_S_MAX}s")
    now_s = int(time.time())
    with _store(config, state_dir) as store, _records(config, state_dir) as records:
        old = _find(store, key)
        if not is_good(old, now_s):
            raise UsageError(f"{key} was revoked or has expired: make a new one")
        new, row = mint_successor(old, now_s)
        with _handed_out(new, key_file), _replaced(store, records, old, row, grace_s):
            _show_new(new, row, key_file, json)
    return 0


def init(*, key_file: NewFile = None, config: Config = None, state_dir: StateDir = None) -> int:
    """Make the first admin key, into a file that only you can read.

    Commands on this machine find it there: `rbee status`, `rbee chat` and the others.
    """
    from rbee.supervisor.access.minting import mint

    folder = state_dir_for(config, state_dir)
    path = key_file or folder / ADMIN_KEY_FILE
    now_s = int(time.time())
    order = _order({"role": "admin", "name": "made by rbee init"}, now_s)
    with _store(config, state_dir) as store, _records(config, state_dir) as records:
        key, row = mint(order, now_s)
        with _handed_out(key, path), _kept(store, records, row):
            _show_new(key, row, path, as_json=False)
    return 0


def _order(body: dict[str, object], now_s: int) -> "KeyOrder":
    """What the API would make of the same."""
    from rbee.errors import RequestError
    from rbee.supervisor.api.key_body import read_key_order

    try:
        return read_key_order(json_text.dumps(body).encode(), now_s)
    except RequestError as error:
        told = [f"{each.field} {each.problem}" for each in error.details] or [error.message]
        raise UsageError("; ".join(told)) from error


def _seconds(text: str) -> int | None:
    """The length of a time such as ``12h``; None: it is none."""
    match = _SPAN.fullmatch(text)
    return int(match[1]) * _UNITS_S[match[2]] if match else None


def _store(config: Path | None, state_dir: Path | None) -> "Store":
    from rbee.store import FILE_NAME, open_store

    store = open_store(state_dir_for(config, state_dir) / FILE_NAME)
    assert store is not None, "it is made where there is none"
    return store


def _records(
    config: Path | None, state_dir: Path | None
) -> contextlib.AbstractContextManager[Records]:
    from rbee.cli.effective_config import configuration

    return records_of(configuration(config).audit, state_dir_for(config, state_dir))


def _kept(
    store: "Store", records: Records, row: "KeyRow"
) -> contextlib.AbstractContextManager[None]:
    """Keep a new key, recorded; one that is not, or that the block fails to hand out, is good for
    nothing.
    """
    from rbee.supervisor.access.minting import created

    return _done(
        records, row, [created(row)],
        lambda: store.keys.add(row),
        lambda undone: store.keys.revoke(row.id, row.created_s, undone),
    )  # fmt: skip


def _replaced(
    store: "Store", records: Records, old: "KeyRow", new: "KeyRow", grace_s: int
) -> contextlib.AbstractContextManager[None]:
    """Keep a new key in the place of another, likewise; else the old one is as it was."""
    from rbee.supervisor.access.minting import created, rotated

    now_s, retired = new.created_s, rotated(old, new.id, grace_s)
    reason = retired.reason
    return _done(
        records, new, [created(new), retired],
        lambda: store.keys.replace(old.id, new, retired_s=now_s + grace_s, reason=reason),
        lambda undone: store.keys.put_back(
            old, new.id, reason=reason, now_s=now_s, undone=undone
        ),
    )  # fmt: skip


@contextlib.contextmanager
def _done(
    records: Records, new: "KeyRow", deeds: "Sequence[KeyCreated | KeyRevoked]",
    act: Callable[[], object], undo: Callable[[str], object],
) -> Iterator[None]:  # fmt: skip
    """Do what makes a key, recorded; undo it where it is not, or where the block fails."""
    from rbee.errors import AuditError
    from rbee.supervisor.access.minting import revoked

    records.do(deeds, act, lambda: undo(_NOT_RECORDED))
    try:
        yield
    except BaseException:
        try:
            records.do([revoked(new, _NOT_SHOWN)], lambda: undo(_NOT_SHOWN))
        except AuditError:  # what nobody has must not be good, recorded or not
            undo(_NOT_SHOWN)
        raise


def _find(store: "Store", key_id: str) -> "KeyRow":
    for row in store.keys.all():
        if row.id == key_id:
            return row
    raise UsageError(f"there is no key {printable_line(key_id)!r}; `rbee keys list` shows them")


@contextlib.contextmanager
def _handed_out(key: "NewKey", path: Path | None) -> Iterator[None]:
    """Write a key to a file, if there is to be one; take it away if the block fails."""
    if path is None:
        yield
        return
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True)
        descriptor = os.open(path, _CREATE, 0o600)
    except FileExistsError as error:
        message = f"{path} is there already; take it away, or choose another with --key-file"
        raise UsageError(message) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror}") from error
    try:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123  # a descriptor
            file.write(key.text + "\n")
            file.flush()
            os.fsync(descriptor)
        yield
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        raise


def _show_new(key: "NewKey", row: "KeyRow", path: Path | None, as_json: bool) -> None:
    if as_json:
        shown = {"key": key.text} if path is None else {"key_file": str(path)}
        put(json_text.dumps({**_shown(row), **shown}))
    elif path is not None:
        put(f"{row.id}: {row.role} key written to {path}")
    else:
        put(key.text)
        say(f"{row.id}: {row.role} key; it is not shown again")


def _shown(row: "KeyRow") -> dict[str, object]:
    from rbee.supervisor.access.minting import shown

    return shown(row)


def _cells(row: "KeyRow", now_s: float) -> tuple[str, ...]:
    from rbee.supervisor.access.instant import rfc_3339

    is_expired = row.expires_s is not None and row.expires_s <= now_s
    state = "revoked" if row.revoked_s is not None else "expired" if is_expired else "good"
    limits = ",".join(f"{name}={value}" for name, value in row.limits.items())
    return (
        row.id, state, row.role, row.name or "-", ",".join(row.models) or "all",
        limits or "none", rfc_3339(row.created_s),
        "never" if row.expires_s is None else rfc_3339(row.expires_s), row.fingerprint,
    )  # fmt: skip
