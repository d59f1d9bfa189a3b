"""The version that is imitated."""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors

__version__ = "0.3.2"
