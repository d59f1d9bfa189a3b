"""Which role may do what: the one table of routes and methods. Pure.

Rule 1: what is not in the table is for nobody. A new route needs a line here.
Rule 2: a path stands here as in the table of routes, never as a client sent it.
"""

from collections.abc import Mapping
from typing import Final

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.access.principal import Principal, Role

# Open to everybody: their answers say nothing but a status.
OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready", "/health/startup"})

LEAST_ROLES: Final[Mapping[tuple[str, str], Role]] = {
    ("GET", "/v1/models"): Role.VIEWER,
    ("GET", "/v1/models/{name:path}"): Role.VIEWER,
    ("GET", "/v1/auth/permission"): Role.VIEWER,
    ("GET", "/openapi.json"): Role.VIEWER,
    ("GET", "/docs"): Role.VIEWER,
    ("GET", "/metrics"): Role.VIEWER,
    ("POST", "/v1/chat/completions"): Role.USER,
    ("POST", "/v1/completions"): Role.USER,
    ("DELETE", "/v1/requests/{id}"): Role.USER,  # its own; an operator any
    ("GET", "/v1/rbee/status"): Role.VIEWER,
    ("GET", "/v1/rbee/workers"): Role.VIEWER,
    ("POST", "/v1/rbee/workers/{slot}/restart"): Role.OPERATOR,
    ("POST", "/v1/rbee/workers/{slot}/stop"): Role.OPERATOR,
    ("POST", "/v1/rbee/workers/{slot}/reset"): Role.OPERATOR,
    ("GET", "/v1/rbee/crashes"): Role.OPERATOR,  # they show what workers printed
    ("GET", "/v1/rbee/crashes/{crash}"): Role.OPERATOR,
    ("GET", "/v1/rbee/keys"): Role.ADMIN,
    ("POST", "/v1/rbee/keys"): Role.ADMIN,
    ("DELETE", "/v1/rbee/keys/{id}"): Role.ADMIN,
    ("POST", "/v1/rbee/keys/{id}/rotate"): Role.ADMIN,
    ("GET", "/v1/rbee/revocations"): Role.ADMIN,
    ("POST", "/v1/rbee/revocations"): Role.ADMIN,
}


def check_right(principal: Principal | None, method: str, path: str) -> None:
    """Let a principal do something, or not.

    Args:
      principal: None: nobody knows who it is.
      path: of the route.
    Raises:
      RequestError: PERMISSION_DENIED.
    """
    if path in OPEN_PATHS:
        return
    least = least_role(method, path)
    if principal is None or least is None or not principal.role.includes(least):
        needed = "no role has" if least is None else f"takes the role {least}"
        raise RequestError(ErrorCode.PERMISSION_DENIED, f"this key may not do this, which {needed}")


def least_role(method: str, path: str) -> Role | None:
    """The least role that may use a method of a route; None: nobody may."""
    if method == "OPTIONS":
        return Role.VIEWER  # which methods there are
    return LEAST_ROLES.get(("GET" if method == "HEAD" else method, path))


def rights_of(role: Role) -> list[str]:
    """What a role may do, as "GET /v1/models"."""
    return [f"{m} {path}" for (m, path), least in LEAST_ROLES.items() if role.includes(least)]
