"""One llama.cpp context: the batch that goes in, the logits that come out, the cache between.

Rule 1: this is the only file that calls `llama_decode` and touches the cache's memory.
Rule 2: array buffers live as long as the context, so that a step allocates nothing in C.
"""

import ctypes
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rbee.engine.llamacpp import abi

FloatArray = NDArray[np.float32]


class AbortFlag:
    """Stops a running decode from another thread.

    llama.cpp calls its abort callback between any two nodes of a graph, some hundred times a
    step: a Python function there would fight for the GIL each time. libc's ``strlen`` on a
    string of at most one byte is a ready-made "is the flag set?" in machine code.
    """

    def __init__(self) -> None:
        self._text: Final = ctypes.create_string_buffer(2)

    @property
    def address(self) -> int:
        return ctypes.addressof(self._text)

    @property
    def callback(self) -> int | None:
        return ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value

    @property
    def is_set(self) -> bool:
        return self._text.raw[0] != 0

    def set(self) -> None:
        self._text[0] = b"\x01"

    def clear(self) -> None:
        self._text[0] = b"\x00"


class Context:
    """A context of a loaded model, and its memory.

    Args:
      library: llama.cpp.
      pointer: the context; freed by `close`.
      tokens_max: most tokens in one batch.
      sequences: how many sequences the context holds.
      vocabulary_size: length of a row of logits.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        pointer: int,
        tokens_max: int,
        sequences: int,
        vocabulary_size: int,
    ) -> None:
        self._library = library
        self._pointer: int | None = pointer
        self._memory: int = library.llama_get_memory(pointer)
        self._decode = library.llama_decode
        self._get_logits = library.llama_get_logits
        self._vocabulary_size = vocabulary_size
        self.cells: int = library.llama_n_ctx_seq(pointer)  # of each sequence
        self._tokens = np.zeros(tokens_max, np.int32)
        self._positions = np.zeros(tokens_max, np.int32)
        self._counts = np.ones(tokens_max, np.int32)
        self._sequences = np.arange(sequences, dtype=np.int32)
        self._first_owner: int = self._sequences.ctypes.data
        self._owners = np.zeros(tokens_max, np.uintp)  # pointers into `_sequences`
        self._wanted = np.zeros(tokens_max, np.int8)
        self._size = 0
        self._rows = 0
        self._logits: FloatArray = np.empty((0, 0), np.float32)
        self._logits_place = (0, 0)  # address and rows of `_logits`: the same from step to step
        self._batch = abi.Batch(
            0,
            self._tokens.ctypes.data,
            None,
            self._positions.ctypes.data,
            self._counts.ctypes.data,
            self._owners.ctypes.data,
            self._wanted.ctypes.data,
        )

    def begin(self) -> None:
        """Start an empty batch."""
        self._size = self._rows = 0

    def add(self, sequence: int, token_ids: Sequence[int], position: int, *, is_last: bool) -> None:
        """Put tokens of one sequence into the batch.

        Args:
          position: of the first of them in its sequence.
          is_last: whether the logits after the last of them are wanted.
        """
        start, end = self._size, self._size + len(token_ids)
        owner = self._first_owner + 4 * sequence
        if end - start == 1:
            self._tokens[start] = token_ids[0]
            self._positions[start] = position
            self._owners[start] = owner
        else:
            self._tokens[start:end] = token_ids
            self._positions[start:end] = np.arange(position, position + end - start)
            self._owners[start:end] = owner
            self._wanted[start:end] = 0
        self._wanted[end - 1] = is_last
        self._rows += is_last
        self._size = end

    def decode(self) -> int:
        """Compute the batch. Blocks without the GIL; gives llama.cpp's code."""
        self._batch.n_tokens = self._size
        code: int = self._decode(self._pointer, self._batch)
        return code

    def logits(self) -> FloatArray:
        """The rows that were wanted, in the batch's order: float32 [rows, vocabulary].

        They are the library's own memory, overwritten by the next `decode`.
        """
        place = (self._get_logits(self._pointer), self._rows)
        if place != self._logits_place:
            values = ctypes.c_float * (self._rows * self._vocabulary_size)
            flat = np.ctypeslib.as_array(values.from_address(place[0]))
            self._logits = flat.reshape(self._rows, self._vocabulary_size)
            self._logits_place = place
        return self._logits

    def remove(self, sequence: int, position: int) -> bool:
        """Forget a sequence from ``position`` on. False: this model can only forget it whole."""
        removed: bool = self._library.llama_memory_seq_rm(self._memory, sequence, position, -1)
        return removed

    def copy(self, source: int, target: int) -> None:
        """Make ``target``, which is empty, equal to ``source``."""
        self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def warm_up(self, token_id: int) -> int:
        """Compute one token, so that memory is there and weights are read; forget it again."""
        self._library.llama_set_warmup(self._pointer, True)
        self.begin()
        self.add(0, [token_id], 0, is_last=True)
        code = self.decode()
        self._library.llama_memory_clear(self._memory, True)
        self._library.llama_set_warmup(self._pointer, False)
        return code

    def close(self) -> None:
        if self._pointer is not None:
            self._library.llama_free(self._pointer)
            self._pointer = None
