"""The GPU engine: exllamav2 0.3.2, driven step by step through its batching generator.

Importing this package imports neither torch nor exllamav2; `ExLlamaV2Engine.load` does.
"""

from rbee.engine.exllamav2.engine import ExLlamaV2Engine

__all__ = ["ExLlamaV2Engine"]
