"""``/v1/rbee/revocations``: JWTs that are not to be taken any more.

Rule: what is done is in the audit log before it is done, and in the store before it is answered.
"""

from typing import Final

from starlette.requests import Request
from starlette.routing import Route

from rbee.audit import Audit
from rbee.config import ServerConfig
from rbee.errors import AuditError, ErrorCode, RequestError, StoreError
from rbee.supervisor.access.instant import rfc_3339
from rbee.supervisor.api.answers import Answer, json_answer
from rbee.supervisor.api.ports import JwtRevocations
from rbee.supervisor.api.request_body import BodyReader
from rbee.supervisor.api.revocation_body import read_revocation
from rbee.supervisor.api.routing import route
from rbee.supervisor.api.visit import visit_of

_NO_JWTS: Final = "this server takes no JWTs: [jwt] issuer is not set"


def revocation_routes(
    revocations: JwtRevocations | None, audit: Audit, config: ServerConfig
) -> list[Route]:
    """The routes; where JWTs are not taken there is nothing behind them."""
    bodies = BodyReader(config)

    async def show(_request: Request) -> Answer:
        listed = _known(revocations).listed()
        rows = sorted(listed.items(), key=lambda row: (row[1], row[0]))
        return json_answer({"revocations": [_shown(jti, until_s) for jti, until_s in rows]})

    async def revoke(request: Request) -> Answer:
        visit = visit_of(request.scope)
        known = _known(revocations)
        jti, expires_s = await bodies.read(visit, request.receive, read_revocation)
        until_s = known.kept_until_s(expires_s)
        assert visit.principal is not None
        try:
            await audit.record_durably(
                known.record_of(jti, until_s),
                actor=visit.principal.actor,
                correlation_id=visit.correlation_id,
            )
        except AuditError as error:
            message = "a revocation cannot be recorded now, so it is not done"
            raise RequestError(ErrorCode.AUDIT_UNAVAILABLE, message) from error
        try:
            await known.revoke(jti, until_s)
        except StoreError as error:
            message = "the store cannot be used now, or is full; nothing was revoked"
            raise RequestError(ErrorCode.STORE_UNAVAILABLE, message) from error
        return json_answer(_shown(jti, until_s), 201)

    return [route("/v1/rbee/revocations", get=show, post=revoke)]


def _known(revocations: JwtRevocations | None) -> JwtRevocations:
    if revocations is None:
        raise RequestError(ErrorCode.NOT_FOUND, _NO_JWTS)
    return revocations


def _shown(jti: str, until_s: int) -> dict[str, object]:
    return {"jti": jti, "object": "revocation", "expires": rfc_3339(until_s)}
