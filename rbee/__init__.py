"""rbee: one supervisor for the LLM workers of one GPU box."""

from typing import Final

__version__: Final = "0.1.0"
