"""From where requests may come: what is asked of every one, before its route is looked at. Pure.

Rule 1: where no key is asked for, what must be kept out is the browser: a page of elsewhere that
        makes requests to localhost, or whose name was bound to 127.0.0.1 after it was loaded
        (DNS rebinding). Where keys are asked for, such a page has none: then any host name will
        do, unless some are listed.
Rule 2: what is refused here is refused for every route, known or not.
"""

import functools
import ipaddress
import re
from collections.abc import Collection, Sequence
from typing import Final

from rbee.errors import ErrorCode, RequestError
from rbee.ids import is_correlation_id

CORRELATION_HEADER: Final = "X-Correlation-ID"

_HOST: Final = re.compile(
    r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:(?P<port>[0-9]{1,5}))?", re.ASCII
)
_ORIGIN: Final = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#@\s]{1,300})", re.ASCII)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def check_correlation_id(values: Sequence[str]) -> str | None:
    """The client's correlation id, if it brought a good one; None if it brought none.

    Raises:
      RequestError: it brought something else.
    """
    if not values:
        return None
    if len(values) > 1 or not is_correlation_id(values[0]):
        raise RequestError(
            ErrorCode.INVALID_REQUEST,
            f"{CORRELATION_HEADER} must be given once, as 1 to 64 letters, digits and ._-",
            param=CORRELATION_HEADER,
        )
    return values[0]


def check_host(hosts: Sequence[str], allowed: Collection[str], *, any_name: bool = False) -> None:
    """The request must have been meant for this machine, by a name of loopback or an allowed one.

    Args:
      any_name: every name is allowed.
    Raises:
      RequestError: FORBIDDEN_HOST.
    """
    is_ours = _is_host if any_name else _is_ours
    if len(hosts) != 1 or not is_ours(hosts[0], tuple(allowed)):
        raise RequestError(
            ErrorCode.FORBIDDEN_HOST,
            "the Host header must name loopback, or stand in server.allowed_hosts",
        )


def check_origin(
    origins: Sequence[str],
    hosts: Sequence[str],
    allowed: Collection[str],
    allowed_origins: Collection[str] = (),
    *,
    any_name: bool = False,
) -> str:
    """A request from a web page must come from a page of this very server, or an allowed one.

    Args:
      allowed_origins: as ``scheme://host:port``, in lower case.
      any_name: every host name is allowed.
    Returns:
      The allowed origin; "": it comes from no page, or from one of ours.

    Raises:
      RequestError: FORBIDDEN_ORIGIN.
    """
    if len(origins) == 1 and origins[0] in allowed_origins:
        return origins[0]
    is_ours = _is_host if any_name else _is_ours
    for origin in origins:
        match = _ORIGIN.fullmatch(origin)
        if match is None or not hosts or not is_ours(match["host"], tuple(allowed)):
            raise _forbidden_origin()
        if _address(match["host"], match["scheme"]) != _address(hosts[0], match["scheme"]):
            raise _forbidden_origin()
    return ""


def _forbidden_origin() -> RequestError:
    return RequestError(
        ErrorCode.FORBIDDEN_ORIGIN, "requests from web pages of other origins are refused"
    )


@functools.lru_cache(maxsize=256)  # clients name few hosts, and name them again and again
def _is_ours(host: str, allowed: tuple[str, ...]) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match["name"].lower()
    if name == "localhost" or _is_loopback(name.strip("[]")):
        return True
    known = {each.lower() for each in allowed}
    return name in known or host.lower() in known


def _is_host(host: str, _allowed: tuple[str, ...]) -> bool:
    return _HOST.fullmatch(host) is not None


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _address(host: str, scheme: str) -> tuple[str, str] | None:
    """Name and port. None: this is no host, so it is nobody's."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    return match["name"].lower(), match["port"] or _DEFAULT_PORTS[scheme]
