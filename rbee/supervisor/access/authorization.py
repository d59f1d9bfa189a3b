"""The credential in a request's headers, as RFC 9110 and RFC 6750 have it. Pure.

Rule: what is not exactly one well-formed ``Bearer`` credential is none at all. Nothing is
      guessed, joined or cut.
"""

import re
from collections.abc import Sequence
from typing import Final

# A key has 63 letters; a JWT with many claims some thousand.
TOKEN_LETTERS_MAX: Final = 8192

_BEARER: Final = re.compile(r"bearer +(?P<token>[A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)


class NoCredentialError(Exception):
    """There is no credential that could be looked at.

    Args:
      reason: "missing" or "malformed", as the audit log has it.
      message: for the author of the client.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def looks_like_jwt(token: str) -> bool:
    """Whether it is to be taken for a JWT: it begins with ``{"`` in base64url. No key does."""
    return token.startswith("eyJ")


def read_bearer(authorization: Sequence[str], x_api_key: Sequence[str]) -> str:
    """The token of a request.

    Args:
      authorization: all values of the header.
      x_api_key: likewise.
    Raises:
      NoCredentialError: there is none, or not in the one way that is taken.
    """
    if x_api_key:
        message = "x-api-key is not taken on this route; send Authorization: Bearer KEY"
        raise NoCredentialError("malformed", message)
    if not authorization:
        message = "this server wants an API key: send Authorization: Bearer KEY"
        raise NoCredentialError("missing", message)
    match = _BEARER.fullmatch(authorization[0]) if len(authorization) == 1 else None
    if match is None or len(match["token"]) > TOKEN_LETTERS_MAX:
        message = "Authorization must be given once, as Bearer KEY"
        raise NoCredentialError("malformed", message)
    return match["token"]
