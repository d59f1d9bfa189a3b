"""Options that several commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class At:
    """Which server a command talks to."""

    url: Annotated[
        str | None, Parameter(help="Of the server; else as ./rbee.toml or the default.")
    ] = None
    ca_file: Annotated[
        Path | None,
        Parameter(help="Whose certificates to trust, in PEM form; else those of this system."),
    ] = None
    key_file: Annotated[
        Path | None,
        Parameter(help="Of an API key; else admin.key of the state folder, for servers here."),
    ] = None


HERE: Final = At()
