"""What schemathesis is told of our API: loaded by it, through `api_fuzz`."""

import os
from typing import Any, Final

import schemathesis

from rbee.ids import is_model_name

MODEL: Final = "synthetic"
SPARE_SLOT: Final = "synthetic-1"
NOBODYS_KEY: Final = "00000000"

# Names the key that the requests are made with.
KEY_ID_VARIABLE: Final = "RBEE_API_FUZZ_KEY_ID"


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """A good name of a model becomes that of the model which is there: else all ends in 404.

    Half of these requests become streams, where nothing is said of it.
    """
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        name = body["model"]
        if is_model_name(name) and len(name) % 4:
            return {"stream": len(name) % 2 == 0, **body, "model": MODEL}
    return body


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Of two workers, one goes on: what is restarted and stopped is the other. So does our key."""
    named = case.path_parameters or {}
    slot = named.get("slot")
    if isinstance(slot, str) and slot.startswith(MODEL):
        named["slot"] = SPARE_SLOT
    if named.get("id") == os.environ[KEY_ID_VARIABLE]:
        named["id"] = NOBODYS_KEY
