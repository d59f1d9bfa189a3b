"""As much of torch as the adapter and the fake exllamav2 use, on numpy. No GPU is behind it."""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors
# ruff: noqa: A001, ANN001, ANN002, ANN201, ANN204

from types import SimpleNamespace

import numpy as np

__version__ = "2.11.0+cu130"
version = SimpleNamespace(cuda="13.0", hip=None)
long, float, float32 = np.int64, np.float32, np.float32


class OutOfMemoryError(RuntimeError):
    """torch's own name for it."""


class Tensor:
    """An array with the few methods that are called."""

    def __init__(self, array):
        self.array = array
        self.device = SimpleNamespace(type="cpu", index=None)

    @property
    def shape(self):
        return self.array.shape

    def __len__(self):
        return len(self.array)

    def __iter__(self):
        return (Tensor(each) for each in self.array)

    def __getitem__(self, key):
        return Tensor(self.array[key])

    def numpy(self):
        return self.array

    def tolist(self):
        return self.array.tolist()

    def item(self):
        return self.array.item()

    def view(self, *shape):
        return Tensor(self.array.reshape(shape))


def tensor(values, dtype=None):
    return Tensor(np.array(values, dtype=dtype))


def zeros(shape, dtype=None):
    return Tensor(np.zeros(shape, dtype=dtype))


GIB = 1 << 30


class Cuda:
    """One H200 that nothing runs on; a test may change what it says."""

    OutOfMemoryError = OutOfMemoryError
    count = 1
    capability = (9, 0)
    free, total = 138 * GIB, 139 * GIB
    fraction = 1.0

    def is_available(self):
        return self.count > 0

    def device_count(self):
        return self.count

    def get_device_name(self, device=None):
        return "NVIDIA H200"

    def get_device_capability(self, device=None):
        return self.capability

    def mem_get_info(self, device=None):
        return self.free, self.total

    def set_per_process_memory_fraction(self, fraction, device=None):
        self.fraction = fraction

    def memory_reserved(self, device=None):
        return 3 * GIB

    def empty_cache(self):
        pass


cuda = Cuda()
