"""``/v1/rbee/keys``: API keys made, listed, rotated, revoked. ``/v1/auth/permission``: one's own.

Rule 1: what is done is in the audit log before it is done, and in the store before it is answered.
Rule 2: the first key is never made over the wire: who comes first might be anybody.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio
from starlette.requests import Request
from starlette.routing import Route

from rbee.audit import Audit
from rbee.audit.events import Details
from rbee.config import ServerConfig
from rbee.errors import AuditError, ErrorCode, KeysFullError, RequestError, StoreError
from rbee.store import KeyRow
from rbee.supervisor.access.api_key import NewKey, is_key_id
from rbee.supervisor.access.instant import rfc_3339
from rbee.supervisor.access.minting import (
    created,
    is_good,
    mint,
    mint_successor,
    revoked,
    rotated,
    shown,
)
from rbee.supervisor.access.principal import Principal
from rbee.supervisor.access.rights import rights_of
from rbee.supervisor.api.answers import Answer, json_answer
from rbee.supervisor.api.key_body import read_key_order, read_rotation
from rbee.supervisor.api.ports import KeyStore
from rbee.supervisor.api.request_body import BodyReader
from rbee.supervisor.api.routing import route
from rbee.supervisor.api.visit import Visit, visit_of
from rbee.threads import thread_refusals

T = TypeVar("T")

_ON_DEMAND: Final = "on demand"


def key_routes(
    keys: KeyStore, audit: Audit, config: ServerConfig, unix_clock: Callable[[], float]
) -> list[Route]:
    return [
        *_Keys(keys, audit, BodyReader(config), unix_clock).routes(),
        route("/v1/auth/permission", get=_show_permission),
    ]


class NoKeys:
    """Where there is no store."""

    state = "unavailable"

    def rows(self) -> list[KeyRow]:
        return []

    def row(self, *_: object, **__: object) -> KeyRow | None:
        return None

    async def add(self, *_: object, **__: object) -> None:
        raise StoreError("there is no store")

    async def replace(self, *_: object, **__: object) -> None:
        raise StoreError("there is no store")

    async def revoke(self, *_: object, **__: object) -> bool:
        raise StoreError("there is no store")


NO_KEYS: Final = NoKeys()


async def _show_permission(request: Request) -> Answer:
    principal = _principal(request)
    expires = principal.expires_unix_s
    return json_answer(
        {
            "actor": principal.actor,
            "role": principal.role,
            "models": sorted(principal.models) or None,
            "limits": principal.limits,
            "expires": None if expires is None else rfc_3339(int(expires)),
            "rights": rights_of(principal.role),
        }
    )


class _Keys:
    """The routes that change keys."""

    def __init__(
        self, keys: KeyStore, audit: Audit, bodies: BodyReader, unix_clock: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._audit = audit
        self._bodies = bodies
        self._unix_clock = unix_clock

    def routes(self) -> list[Route]:
        return [
            route("/v1/rbee/keys", get=self._list, post=self._create),
            route("/v1/rbee/keys/{id}", delete=self._revoke),
            route("/v1/rbee/keys/{id}/rotate", post=self._rotate),
        ]

    async def _list(self, _request: Request) -> Answer:
        keys = [shown(row) for row in self._keys.rows()]
        return json_answer({"keys": keys, "store": self._keys.state})

    async def _create(self, request: Request) -> Answer:
        visit = _known(request)
        order = await self._bodies.read(
            visit, request.receive, lambda raw: read_key_order(raw, self._unix_clock())
        )
        key, row = await _in_thread(lambda: mint(order, int(self._unix_clock())))
        await self._record(visit, created(row))
        await _stored(lambda: self._keys.add(row))
        return _made(key, row)

    async def _revoke(self, request: Request) -> Answer:
        visit = _known(request)
        row = self._row(request)
        now_s = int(self._unix_clock())
        if row.revoked_s is None:
            await self._record(visit, revoked(row, _ON_DEMAND))
            await _stored(lambda: self._keys.revoke(row.id, now_s, _ON_DEMAND))
        return json_answer({"id": row.id, "object": "key", "revoked": True})

    async def _rotate(self, request: Request) -> Answer:
        visit = _known(request)
        grace_s = await self._bodies.read(visit, request.receive, read_rotation)
        old = self._row(request)
        now_s = int(self._unix_clock())
        if not is_good(old, now_s):
            message = "a key that was revoked or has expired cannot be rotated; make a new one"
            raise RequestError(ErrorCode.INVALID_REQUEST, message, param="id")
        key, row = await _in_thread(lambda: mint_successor(old, now_s))
        await self._record(visit, created(row))
        retired = rotated(old, row.id, grace_s)
        await self._record(visit, retired)
        await _stored(
            lambda: self._keys.replace(
                old.id, row, retired_s=now_s + grace_s, reason=retired.reason
            )
        )
        return _made(key, row)

    def _row(self, request: Request) -> KeyRow:
        key_id: str = request.path_params["id"]
        row = self._keys.row(key_id) if is_key_id(key_id) else None
        if row is None:
            message = "there is no such key; GET /v1/rbee/keys lists them"
            raise RequestError(ErrorCode.KEY_NOT_FOUND, message)
        return row

    async def _record(self, visit: Visit, details: Details) -> None:
        assert visit.principal is not None
        try:
            await self._audit.record_durably(
                details, actor=visit.principal.actor, correlation_id=visit.correlation_id
            )
        except AuditError as error:
            message = "what concerns keys cannot be recorded now, so it is not done"
            raise RequestError(ErrorCode.AUDIT_UNAVAILABLE, message) from error


def _principal(request: Request) -> Principal:
    principal = visit_of(request.scope).principal
    assert principal is not None, "the route lets in nobody who is not known"
    return principal


def _known(request: Request) -> Visit:
    """The visit of somebody who has shown a credential.

    Raises:
      RequestError: nobody need show one yet.
    """
    if not _principal(request).credential_id:
        message = "the first key is made on the server's own machine: rbee keys create"
        raise RequestError(ErrorCode.PERMISSION_DENIED, message)
    return visit_of(request.scope)


async def _stored(work: Callable[[], Awaitable[T]]) -> T:
    try:
        return await work()
    except KeysFullError as error:
        raise RequestError(ErrorCode.INVALID_REQUEST, str(error)) from error
    except StoreError as error:
        message = "the store of the keys cannot be used now; nothing was changed"
        raise RequestError(ErrorCode.STORE_UNAVAILABLE, message) from error


async def _in_thread(work: Callable[[], T]) -> T:
    """Hash a key: it takes some 30 ms."""
    try:
        with thread_refusals():
            return await trio.to_thread.run_sync(work)
    except OSError:  # better late for some than never for this one
        return work()


def _made(key: NewKey, row: KeyRow) -> Answer:
    return json_answer({**shown(row), "key": key.text}, 201)
