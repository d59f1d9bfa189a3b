"""From `rbee.ask.Sampling` to exllamav2's settings, and logprobs from its logits.

Rule 1: every field of its `ExLlamaV2Sampler.Settings` that shapes a draw is set: its defaults
        are neither neutral nor OpenAI's.
Rule 2: frequency and presence penalties count the answer's tokens alone, as OpenAI's do;
        exllamav2's own count the prompt too, so they are done by the bias. The repetition
        penalty counts prompt and answer.
Rule 3: logits are read before exllamav2 changes them in place.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rbee.ask import Sampling, TokenLogprob

Floats = npt.NDArray[np.float32]

# exllamav2 itself takes anything below for greedy.
TEMPERATURE_MIN: Final = 0.01

_NEUTRAL: Final[dict[str, Any]] = {
    "token_repetition_range": -1,  # all of prompt and answer
    "token_repetition_decay": 0,
    "token_frequency_penalty": 0.0,  # by the bias, as the presence penalty
    "token_presence_penalty": 0.0,
    "smoothing_factor": 0.0,
    "min_temp": 0.0,
    "max_temp": 0.0,
    "temp_exponent": 1.0,
    "top_a": 0.0,
    "tfs": 0.0,
    "typical": 0.0,
    "skew": 0.0,
    "temperature_last": False,
    "mirostat": False,
    "cfg_scale": None,
    "dry_multiplier": 0.0,
    "xtc_probability": 0.0,
}


def settings(sampling: Sampling) -> dict[str, Any]:
    """The arguments of ``ExLlamaV2Sampler.Settings``, the bias aside."""
    chosen = {**_NEUTRAL, "token_repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature < TEMPERATURE_MIN:
        return {**chosen, "temperature": 1.0, "top_k": 1, "top_p": 1.0, "min_p": 0.0}
    return {
        **chosen,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
    }


class Bias:
    """What is added to the logits of one job before each draw.

    Holds ``logit_bias`` and the frequency and presence penalties, which grow with the answer.

    Args:
      values: float32 [width], zeros; the memory that the sampler reads.
      answered: the tokens of the answer so far.
    """

    def __init__(self, sampling: Sampling, values: Floats, answered: Iterable[int]) -> None:
        self._values = values
        self._frequency = sampling.frequency_penalty
        self._presence = sampling.presence_penalty
        self._seen: set[int] = set()
        for token_id, bias in sampling.logit_bias.items():
            values[token_id] += bias
        for token_id in answered:
            self.note(token_id)

    @staticmethod
    def is_needed(sampling: Sampling) -> bool:
        return bool(sampling.logit_bias or sampling.frequency_penalty or sampling.presence_penalty)

    def note(self, token_id: int) -> None:
        """A token was drawn. Source: OpenAI's API reference, "frequency and presence penalties"."""
        self._values[token_id] -= self._frequency
        if token_id not in self._seen:
            self._seen.add(token_id)
            self._values[token_id] -= self._presence


def token_logprob(
    logits: Floats, token_id: int, top: int, piece: Callable[[int], bytes]
) -> TokenLogprob:
    """How likely ``token_id`` was.

    Args:
      logits: float32 [vocabulary], as the model gave them.
      top: how many of the likeliest to name as well.
    """
    likeliest = float(logits.max())
    total = float(np.log(np.exp(logits - likeliest, dtype=np.float64).sum())) + likeliest
    alternatives: list[tuple[int, bytes, float]] = []
    if top > 0:
        count = min(top, len(logits))
        ids = np.argpartition(logits, len(logits) - count)[-count:]
        ranked = sorted((-float(logits[i]), int(i)) for i in ids)
        alternatives = [(i, piece(i), -negative - total) for negative, i in ranked]
    chosen = float(logits[token_id]) - total
    return TokenLogprob(token_id, piece(token_id), chosen, tuple(alternatives))
