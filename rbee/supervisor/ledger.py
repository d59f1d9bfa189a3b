"""The books of the GPUs' memory: who holds how much, and who may have some. Pure rules.

Rule 1: what a worker may come to hold is booked before it is started. The sum never exceeds what
        the GPU has, and no two workers count on the same free bytes.
Rule 2: once it is loaded, what NVML says that its process holds takes the place of that; where it
        does not say so, by how much less is free than before it was started, once nobody else
        is about to give memory back; and never with less than it needs to load.
Rule 3: it is booked until the memory is proved to be back: the process is gone from NVML's list,
        and what no process of the list holds is free; where there is no such list, as much is free
        again. Or until it has lasted too long; with a warning, unless those who load meanwhile
        may have taken what came back.
Rule 4: without NVML the books alone decide; then they are only as good as the predictions.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rbee.supervisor.devices import Gpu
from rbee.vram import GIB, Demand

# Part of what was booked that must be seen to be free again; the rest is others' doing.
BACK_PART: Final = 0.9

# A worker that is started again takes what it took, and a little.
AGAIN_MARGIN: Final = 1.02

# A hot GPU counts as cool again this far below its limit.
COOL_BELOW_C: Final = 3


class Stage(enum.Enum):
    RESERVED = "reserved"  # not loaded yet
    LOADED = "loaded"
    RELEASING = "releasing"  # its process has ended


@dataclass(slots=True)
class Entry:
    """What is booked for one worker."""

    worker_id: str
    stage: Stage
    booked_bytes: int
    least_bytes: int  # with less it cannot load
    free_before_bytes: int | None  # on its GPU, as it was reserved, and what came back since
    pid: int | None = None
    measured_bytes: int | None = None  # what it holds: by NVML's list, or by how much less is free
    held_bytes: int | None = None  # as NVML says of its process; None: it does not
    gone_s: float = 0.0
    # At the last look before it was gone: what was free, and what no listed process held.
    free_at_end_bytes: int | None = None
    unlisted_at_end_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """It is booked: start it, and let it take no more than that."""

    bytes_max: int | None  # None: it needs no GPU


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now."""

    reason: str
    may_change: bool  # by itself: another loads or is being taken away, or the GPU cools down


@dataclass(frozen=True, slots=True)
class Refused:
    """Never, as things are configured."""

    reason: str


Answer = Granted | Wait | Refused


@dataclass(frozen=True, slots=True)
class Held:
    """What is booked on a GPU for one worker, for operators."""

    gpu: int
    stage: Stage
    booked_bytes: int
    held_bytes: int | None


class Ledger:
    """The books of one GPU. `GpuGate` is the only writer.

    Args:
      total_bytes: as NVML said at the start.
      temperature_c_max: the operator's limit; None: the card's own.
    """

    def __init__(self, index: int, total_bytes: int, temperature_c_max: float | None) -> None:
        self.index: Final = index
        self.total_bytes = total_bytes
        self.is_hot = False
        self.tells_processes: bool | None = None  # None: not known yet
        self._temperature_c_max = temperature_c_max
        self._gpu: Gpu | None = None  # None: NVML does not answer
        self._entries: dict[str, Entry] = {}
        self._took: dict[str, int] = {}  # what each worker held when it was last loaded

    # --- what is read

    @property
    def gpu(self) -> Gpu | None:
        """What the last look showed."""
        return self._gpu

    @property
    def booked_bytes(self) -> int:
        return sum(entry.booked_bytes for entry in self._entries.values())

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    @property
    def temperature_limit_c(self) -> float | None:
        if self._temperature_c_max is not None:
            return self._temperature_c_max
        return None if self._gpu is None else self._gpu.temperature_limit_c

    # --- what is seen

    def look(self, gpu: Gpu | None) -> None:
        """Take what NVML says now. None: it does not answer, or says what cannot be."""
        if gpu is not None and not 0 <= gpu.memory_free_bytes <= gpu.memory_total_bytes:
            gpu = None
        self._gpu = gpu
        if gpu is None:
            self.is_hot = False
            for entry in self._entries.values():
                entry.held_bytes = None
            return
        self.total_bytes = gpu.memory_total_bytes
        self._feel(gpu)
        held = self._believed(gpu)
        for entry in self._entries.values():
            entry.held_bytes = None if held is None or entry.pid is None else held.get(entry.pid)
            if entry.stage is Stage.LOADED:
                self._book_truth(entry, gpu)
            if entry.stage is not Stage.RELEASING:
                entry.free_at_end_bytes = gpu.memory_free_bytes
                entry.unlisted_at_end_bytes = _unlisted_bytes(gpu)

    def _feel(self, gpu: Gpu) -> None:
        limit = self.temperature_limit_c
        if gpu.temperature_c is None or limit is None:
            self.is_hot = False
        elif self.is_hot:
            self.is_hot = gpu.temperature_c > limit - COOL_BELOW_C
        else:
            self.is_hot = gpu.temperature_c >= limit

    def _believed(self, gpu: Gpu) -> Mapping[int, int] | None:
        """What is held by pid, if it can be true; and whether it is of use to us."""
        held = gpu.held_bytes
        if held is not None and sum(held.values()) > gpu.memory_total_bytes:
            held = None
        loaded = [entry for entry in self._entries.values() if entry.stage is Stage.LOADED]
        if held is None:
            self.tells_processes = False
        elif any(entry.pid in held for entry in self._entries.values()):
            self.tells_processes = True
        elif loaded:  # it lists processes by the numbers of another pid namespace, or none
            self.tells_processes = False
            held = None
        return held

    def _book_truth(self, entry: Entry, gpu: Gpu) -> None:
        if entry.held_bytes is not None:
            entry.booked_bytes = self._took[entry.worker_id] = entry.held_bytes
            entry.measured_bytes = entry.held_bytes
        elif self.tells_processes is False and entry.measured_bytes is None:
            if entry.free_before_bytes is None or self._is_any_releasing():
                return
            taken = max(0, entry.free_before_bytes - gpu.memory_free_bytes)
            entry.measured_bytes = min(entry.booked_bytes, taken)
            entry.booked_bytes = min(entry.booked_bytes, max(entry.least_bytes, taken))

    def _is_any_releasing(self) -> bool:
        return any(entry.stage is Stage.RELEASING for entry in self._entries.values())

    # --- what happens to workers

    def ask(self, worker_id: str, demand: Demand) -> Answer:
        """Book what the worker needs, if it is to be had now."""
        assert worker_id not in self._entries or self._entries[worker_id].stage is Stage.RELEASING
        if demand.least_bytes > min(self.total_bytes, demand.most_bytes):
            return Refused(self._too_big(demand))
        if worker_id in self._entries:
            return Wait(f"the memory of its last process is not back on GPU {self.index}", True)
        if self.is_hot:
            return Wait(self.heat(), may_change=True)
        least, most = self._need(worker_id, demand)
        available = self._available_bytes()
        if available < least:
            is_moving = any(each.stage is not Stage.LOADED for each in self._entries.values())
            return Wait(self._no_room(least, available), is_moving)
        free = None if self._gpu is None else self._gpu.memory_free_bytes
        granted = min(most, available)
        self._entries[worker_id] = Entry(worker_id, Stage.RESERVED, granted, least, free)
        return Granted(granted)

    def born(self, worker_id: str, pid: int) -> None:
        self._entries[worker_id].pid = pid

    def loaded(self, worker_id: str) -> None:
        """Its model is in memory. Next comes a `look`."""
        entry = self._entries[worker_id]
        if entry.stage is Stage.RESERVED:
            entry.stage = Stage.LOADED

    def gone(self, worker_id: str, now_s: float) -> None:
        """Its process has ended, or was never started."""
        entry = self._entries[worker_id]
        if entry.pid is None:
            del self._entries[worker_id]
            return
        entry.stage, entry.gone_s = Stage.RELEASING, now_s

    def settle(self, now_s: float, timeout_s: float) -> list[Entry]:
        """Take from the books whose memory is back.

        Args:
          timeout_s: from a process' end until its memory is taken for lost.

        Returns:
          Those of which it is not back in time: taken from the books as well.
        """
        late: list[Entry] = []
        for entry in list(self._entries.values()):
            if entry.stage is not Stage.RELEASING:
                continue
            is_back = self._is_back(entry)
            if not is_back and now_s - entry.gone_s < timeout_s:
                continue
            del self._entries[entry.worker_id]
            if is_back or self._is_back(entry, self._perhaps_taken_since(entry)):
                self._came_back(self._taken_bytes(entry))
            else:
                late.append(entry)
        return late

    def _came_back(self, count: int) -> None:
        """Who is measured by what is free must not seem to have taken so much less."""
        for entry in self._entries.values():
            if entry.measured_bytes is None and entry.free_before_bytes is not None:
                entry.free_before_bytes += count

    # --- the rules

    def _is_back(self, entry: Entry, taken_since: int = 0) -> bool:
        """Whether its memory is back, given that others have taken so much since it ended."""
        gpu = self._gpu
        if gpu is None:
            return False
        unlisted = _unlisted_bytes(gpu)
        if self.tells_processes and gpu.held_bytes is not None and unlisted is not None:
            before = entry.unlisted_at_end_bytes
            is_gone = entry.pid not in gpu.held_bytes
            lost = 0 if before is None else unlisted - before
            return is_gone and lost <= (1 - BACK_PART) * entry.booked_bytes
        if entry.free_at_end_bytes is None:
            return False
        back = gpu.memory_free_bytes + taken_since - entry.free_at_end_bytes
        return back >= BACK_PART * self._taken_bytes(entry)

    @staticmethod
    def _taken_bytes(entry: Entry) -> int:
        """What it held at its end, as far as is known: perhaps less than was booked for it."""
        if entry.measured_bytes is not None:
            return entry.measured_bytes
        if entry.free_before_bytes is None or entry.free_at_end_bytes is None:
            return entry.booked_bytes
        gone = max(0, entry.free_before_bytes - entry.free_at_end_bytes)
        return min(entry.booked_bytes, gone)

    def _perhaps_taken_since(self, ended: Entry) -> int:
        """What others may have taken since then, where only what is free tells of it."""
        if self.tells_processes:
            return 0
        return sum(
            entry.booked_bytes
            for entry in self._entries.values()
            if (entry.stage is not Stage.RELEASING and entry.measured_bytes is None)
            or (entry.stage is Stage.RELEASING and entry.gone_s >= ended.gone_s)
        )

    def _need(self, worker_id: str, demand: Demand) -> tuple[int, int]:
        """What it needs at least, and takes at most: what it once took will do again."""
        took = self._took.get(worker_id)
        if took is None:
            return demand.least_bytes, demand.most_bytes
        again = min(int(took * AGAIN_MARGIN), self.total_bytes)
        return min(again, demand.least_bytes), max(again, demand.least_bytes)

    def _available_bytes(self) -> int:
        """What nobody holds, and nobody counts on."""
        by_books = self.total_bytes - self.booked_bytes
        if self._gpu is None:
            return by_books
        coming = sum(
            max(0, entry.booked_bytes - (entry.held_bytes or 0))
            for entry in self._entries.values()
            if entry.stage is Stage.RESERVED
        )
        return min(by_books, self._gpu.memory_free_bytes - coming)

    # --- what is said

    def heat(self) -> str:
        assert self._gpu is not None
        limit = self.temperature_limit_c
        return (
            f"GPU {self.index} has {self._gpu.temperature_c} degrees Celsius, its limit is"
            f" {limit:g}: it takes no new worker until it is below {limit or 0:g} by"
            f" {COOL_BELOW_C}; look at fans, air and what else runs on it"
        )

    def _too_big(self, demand: Demand) -> str:
        may = min(self.total_bytes, demand.most_bytes)
        return (
            f"it needs at least {_gib(demand.least_bytes)} of GPU {self.index}, which has"
            f" {_gib(self.total_bytes)}, of which it may take {_gib(may)}: lower context_length or"
            " cache_tokens, lower cache_bits, or take a smaller or more quantised model"
        )

    def _no_room(self, least: int, available: int) -> str:
        holders = ", ".join(_holder(entry) for entry in self._entries.values())
        return (
            f"it needs at least {_gib(least)} of GPU {self.index}, and {_gib(max(0, available))}"
            f" are to be had: {holders or 'no worker'} of {_gib(self.total_bytes)}"
            f"{self._foreign()}; lower cache_tokens, context_length or vram_fraction of these"
            " models, or give it another gpu"
        )

    def _foreign(self) -> str:
        """What others than our workers hold, as far as it can be told."""
        gpu = self._gpu
        if gpu is None:
            return " (NVML does not answer: by the books)"
        ours = sum(
            entry.booked_bytes if entry.held_bytes is None else entry.held_bytes
            for entry in self._entries.values()
        )
        others = gpu.memory_total_bytes - gpu.memory_free_bytes - ours
        return f", other processes {_gib(others)}" if others >= GIB // 4 else ""


def _holder(entry: Entry) -> str:
    doing = {Stage.RESERVED: " loads and", Stage.LOADED: "", Stage.RELEASING: " ended and"}
    return f"{entry.worker_id}{doing[entry.stage]} holds {_gib(entry.booked_bytes)}"


def _unlisted_bytes(gpu: Gpu) -> int | None:
    """What is taken by nobody whom NVML lists; None: it lists nobody."""
    if gpu.held_bytes is None:
        return None
    return gpu.memory_total_bytes - gpu.memory_free_bytes - sum(gpu.held_bytes.values())


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


def held_by(ledgers: Iterable[Ledger], worker_id: str) -> Held | None:
    """What is booked for a worker, wherever it is."""
    for ledger in ledgers:
        if (entry := ledger.entries.get(worker_id)) is not None:
            return Held(ledger.index, entry.stage, entry.booked_bytes, entry.held_bytes)
    return None
