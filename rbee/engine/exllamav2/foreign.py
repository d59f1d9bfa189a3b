"""A name for what comes from torch and exllamav2: neither is installed where types are checked."""

from typing import Any

Foreign = Any
"""An object of theirs. Which one stands in the docstring, or in the name."""
