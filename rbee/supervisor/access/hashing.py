"""Keys at rest: argon2id, always with the same work.

OWASP's figures for argon2id (Password Storage Cheat Sheet): 19 MiB, 2 passes, 1 lane; about
30 ms of one core. A key has 256 random bits, so nobody guesses it even from a fast hash; the slow
one holds also where a random source was not as random as it should be.
"""

import re
import secrets
from typing import Final

from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import Type, error_to_str, hash_secret, verify_secret

MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32

_PARAMETERS: Final = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$"

_FORM: Final = re.compile(
    re.escape(_PARAMETERS) + "[A-Za-z0-9+/]{22}[$][A-Za-z0-9+/]{43}", re.ASCII
)
_NO_MEMORY: Final = -22  # ARGON2_MEMORY_ALLOCATION_ERROR in argon2.h

# Stands in for the hash of a key that nobody has, so that an unknown id takes as long as a wrong
# secret. Made from random bytes that were not kept.
NOBODYS_HASH: Final = (
    _PARAMETERS + "cFhMLHygDdlIjj5gg82JDw$bENCAlXF8hx5z7pHAl3Za+fpZHePGrug3Crzs6ZO1VQ"
)


def hash_key(text: str) -> str:
    """The hash of a key, in the PHC string format. Takes about 30 ms."""
    raw = hash_secret(
        text.encode("ascii"), secrets.token_bytes(SALT_BYTES),
        PASSES, MEMORY_KIB, LANES, HASH_BYTES, Type.ID,
    )  # fmt: skip
    return raw.decode("ascii")


def is_well_hashed(hashed: str) -> bool:
    """Whether a hash takes the work that it should: no more, and no less."""
    return _FORM.fullmatch(hashed) is not None


def fits(text: str, hashed: str) -> bool:
    """Whether a key is the one of that hash. Takes as long either way: about 30 ms.

    Raises:
      MemoryError: there is no memory to find out.
    """
    if not is_well_hashed(hashed):
        hashed, text = NOBODYS_HASH, ""
    try:
        return verify_secret(hashed.encode("ascii"), text.encode("ascii"), Type.ID)
    except (VerifyMismatchError, InvalidHashError, UnicodeEncodeError):
        return False
    except VerificationError as error:
        if str(error) != error_to_str(_NO_MEMORY):
            return False  # no hash, though it looks like one
        raise MemoryError(str(error)) from error
