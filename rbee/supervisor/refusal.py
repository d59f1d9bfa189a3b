"""Tells what the system refused from what is a bug."""

import traceback
from pathlib import Path


def find_refusal(bug: BaseException) -> str | None:
    """What the system refused, and where, if that is all that is wrong; else None: a bug."""
    if isinstance(bug, BaseExceptionGroup):
        told = [find_refusal(each) for each in bug.exceptions]
        return None if None in told else told[0]
    if not isinstance(bug, OSError):
        return None
    frame = traceback.extract_tb(bug.__traceback__)[-1]
    return f"{bug} (at {Path(frame.filename).name}:{frame.lineno}, {frame.name})"
