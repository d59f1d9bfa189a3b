"""Options that several commands share."""

from typing import Annotated

from cyclopts import Parameter

Url = Annotated[str | None, Parameter(help="Of the server; else as ./rbee.toml or the default.")]
