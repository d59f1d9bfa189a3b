"""Sees that a file system of ours gets full before it is, and says so once each time.

Low is what has less free than both `disk_free_part_min` of it and `disk_free_bytes_min`: the bytes
alone would always warn on a small tmpfs, the part alone far too early on a large disk.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from rbee.config import ServerConfig
from rbee.logs import Log
from rbee.supervisor.views import DiskView
from rbee.threads import thread_refusals

LOOK_EVERY_S: Final = 5.0

# A file system of the network may hang; it is left to its thread then.
LOOK_S_MAX: Final = 2.0

# So much more than the limit must be free again: what writes and deletes is not told each time.
WELL_AGAIN: Final = 1.1


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has. ``files``: places for new ones; 0 in all: it counts none."""

    total_bytes: int
    free_bytes: int  # for who is not root
    total_files: int = 0
    free_files: int = 0


def judge_space(space: Space, part_min: float, bytes_min: int, *, was_low: bool) -> str:
    """Why there is too little left; "" if there is enough."""
    ease = WELL_AGAIN if was_low else 1.0
    wanted = ease * min(part_min * space.total_bytes, bytes_min)
    if space.free_bytes < wanted:
        return f"{space.free_bytes} of {space.total_bytes} bytes are free"
    if space.free_files < ease * part_min * space.total_files:
        return f"{space.free_files} of {space.total_files} files are free"
    return ""


def measure_space(folder: Path) -> Space:
    """Of the file system that ``folder`` is, or will be, on.

    Raises:
      OSError: it cannot be looked at.
    """
    there = next(each for each in (folder, *folder.parents) if each.exists())
    told = os.statvfs(there)
    return Space(
        total_bytes=told.f_blocks * told.f_frsize,
        free_bytes=told.f_bavail * told.f_frsize,
        total_files=told.f_files,
        free_files=told.f_favail,
    )


class DiskWatch:
    """Looks at folders, by what they are called."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        settings: ServerConfig,
        log: Log,
        measure: Callable[[Path], Space] = measure_space,
    ) -> None:
        self._folders = folders
        self._settings = settings
        self._log = log
        self._measure = measure
        self._calls = {place: trio.CapacityLimiter(1) for place in folders}
        self._views: dict[str, DiskView] = {}

    def views(self) -> list[DiskView]:
        """As at the last look."""
        return list(self._views.values())

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            for place in self._folders:
                await self._look(place)
            await trio.sleep(LOOK_EVERY_S)

    async def _look(self, place: str) -> None:
        before = self._views.get(place)
        space, problem = await self._space(place)
        if space is None:
            view = DiskView(place, "unknown", problem, None, None)
        else:
            settings = self._settings
            problem = judge_space(
                space, settings.disk_free_part_min, settings.disk_free_bytes_min,
                was_low=before is not None and before.state == "low",
            )  # fmt: skip
            state = "low" if problem else "ok"
            view = DiskView(place, state, problem, space.free_bytes, space.total_bytes)
        self._views[place] = view
        self._tell("ok" if before is None else before.state, view)

    async def _space(self, place: str) -> tuple[Space | None, str]:
        if not self._calls[place].available_tokens:
            return None, "an earlier look at it has not returned yet"
        with trio.move_on_after(LOOK_S_MAX):
            try:
                with thread_refusals():
                    found = await trio.to_thread.run_sync(
                        self._measure,
                        self._folders[place],
                        abandon_on_cancel=True,
                        limiter=self._calls[place],
                    )
            except OSError as error:
                return None, error.strerror or type(error).__name__
            return found, ""
        return None, f"no answer within {LOOK_S_MAX:g} s"

    def _tell(self, before: str, view: DiskView) -> None:
        folder = str(self._folders[view.place])
        if view.state == before:
            return
        if view.state == "ok":
            self._log.info("disk_well_again", place=view.place, folder=folder)
        elif view.state == "low":
            self._log.warning(
                "disk_low", place=view.place, folder=folder, problem=view.problem,
                remedy="free some space there: crash reports and the audit log need it",
            )  # fmt: skip
        else:
            self._log.warning("disk_unknown", place=view.place, folder=folder, problem=view.problem)
