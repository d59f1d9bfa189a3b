"""The slots of each model: who stands in them, and whether somebody will.

Changes nothing of them but one thing: it tells a slot of a pardon.
"""

from collections.abc import Callable, Iterable

from rbee.supervisor.lifecycle import TAKES_REQUESTS
from rbee.supervisor.slot import Slot
from rbee.supervisor.worker import Worker


class ModelSlots:
    """All slots, by model."""

    def __init__(self, slots: Iterable[Slot], clock: Callable[[], float]) -> None:
        self._slots: dict[str, list[Slot]] = {}
        for slot in slots:
            self._slots.setdefault(slot.model.name, []).append(slot)
        self._clock = clock

    def knows(self, model: str) -> bool:
        return model in self._slots

    def is_served(self, model: str) -> bool:
        """Whether a worker stands in some slot of the model, or will by itself."""
        return any(not slot.is_over for slot in self._slots[model])

    def trial_in_s(self, model: str) -> float | None:
        """When a worker is tried, of a model that is not served; None: not by itself."""
        times_s = [slot.refill_s for slot in self._slots[model] if slot.refill_s is not None]
        return max(0.0, min(times_s) - self._clock()) if times_s else None

    def pardon(self, model: str, slot_ids: Iterable[str]) -> None:
        """What ended workers there was a request's doing."""
        for slot in self._slots[model]:
            if slot.slot_id in slot_ids:
                slot.pardon()

    def workers(self, model: str) -> list[Worker]:
        """Those that stand in its slots, in whatever state."""
        return [slot.worker for slot in self._slots[model] if slot.worker is not None]

    def is_being_filled(self, model: str) -> bool:
        """Whether a worker is to come, beside those that take requests."""
        return any(
            not slot.is_over and (slot.worker is None or slot.worker.state not in TAKES_REQUESTS)
            for slot in self._slots[model]
        )
