"""Where the parts of an audit log lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.store import FILE_NAME

FOLDER_NAME: Final = "audit"
ANCHOR_NAME: Final = "audit-head.json"


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of the files, and beside it the anchor and the store that keeps it as well."""

    folder: Path
    anchor: Path
    store: Path


def place_in(state_dir: Path) -> Place:
    return Place(state_dir / FOLDER_NAME, state_dir / ANCHOR_NAME, state_dir / FILE_NAME)


def place_of_copy(folder: Path) -> Place:
    """Of a folder that was copied, with what lay beside it."""
    beside = folder.absolute().parent
    return Place(folder, beside / ANCHOR_NAME, beside / FILE_NAME)
