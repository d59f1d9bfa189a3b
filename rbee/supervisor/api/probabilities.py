"""Logarithms of probabilities, as JSON and OpenAI's clients can take them."""

import math
from typing import Final

# What OpenAI's API shows for a token that is as good as impossible. JSON has no infinity.
LOGPROB_MIN: Final = -9999.0


def finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LOGPROB_MIN
