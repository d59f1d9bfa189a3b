"""``rbee version``."""

from rbee import __version__
from rbee.cli.terminal import put


def version() -> int:
    """Print the version."""
    put(f"rbee {__version__}")
    return 0
