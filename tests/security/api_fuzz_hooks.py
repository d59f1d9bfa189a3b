"""What schemathesis is told of our API: loaded by it, through `api_fuzz`."""

from typing import Any

import schemathesis

from rbee.ids import is_model_name

MODEL = "synthetic"
SPARE_SLOT = "synthetic-1"


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """A good name of a model becomes that of the model which is there: else all ends in 404."""
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        name = body["model"]
        if is_model_name(name) and len(name) % 4:
            return {**body, "model": MODEL}
    return body


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Of two workers, one goes on: what is restarted and stopped is the other."""
    slot = (case.path_parameters or {}).get("slot")
    if isinstance(slot, str) and slot.startswith(MODEL):
        case.path_parameters["slot"] = SPARE_SLOT
