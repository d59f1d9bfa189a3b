"""Where the parts of an audit log lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER_NAME: Final = "audit"
ANCHOR_NAME: Final = "audit-head.json"


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of the files, and the anchor beside it."""

    folder: Path
    anchor: Path


def place_in(state_dir: Path) -> Place:
    return Place(state_dir / FOLDER_NAME, state_dir / ANCHOR_NAME)


def place_of_copy(folder: Path) -> Place:
    """Of a folder that was copied, with its anchor beside it."""
    return Place(folder, folder.absolute().parent / ANCHOR_NAME)
