"""Stands where the compiled extension would."""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors
