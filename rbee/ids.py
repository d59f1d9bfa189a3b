"""Names of things: their one form, and how a new one is made.

Rule: a name that comes from outside is matched in full before it is used, logged or put
into a path.
"""

import random
import re
import secrets
from typing import Final

WORKER_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)

# What a reader does not see, or sees elsewhere than it stands: C0, C1, marks of direction, and
# Unicode's own ends of lines.
_HIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


# These ids name things and open nothing, so they need not come from the kernel one by one.
_random: Final = random.Random(secrets.randbits(256))  # noqa: S311  # names, no secrets


def has_hidden(text: str) -> bool:
    """Whether it holds control characters, or such as turn the direction of what is read."""
    return _HIDDEN.search(text) is not None


def is_worker_id(text: str) -> bool:
    return WORKER_ID.fullmatch(text) is not None


def is_correlation_id(text: str) -> bool:
    return CORRELATION_ID.fullmatch(text) is not None


def is_model_name(text: str) -> bool:
    return MODEL_NAME.fullmatch(text) is not None and ".." not in text


def new_correlation_id() -> str:
    """A fresh id for a request that brought none: 96 random bits, 24 hex digits."""
    return f"{_random.getrandbits(96):024x}"


def new_answer_id(prefix: str) -> str:
    """A fresh id for an answer, as OpenAI's clients know them: the prefix and 32 hex digits."""
    return f"{prefix}-{_random.getrandbits(128):032x}"
