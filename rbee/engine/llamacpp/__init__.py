"""The CPU engine: llama.cpp, driven step by step over its C interface."""

from rbee.engine.llamacpp.engine import LlamaCppEngine

__all__ = ["LlamaCppEngine"]
