"""What `exllamav2.attn` found: flash-attn is there, as a name."""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors

from types import SimpleNamespace

flash_attn = SimpleNamespace(__version__="2.8.3")
has_flash_attn = True
has_flash_attn_with_paged = True
has_flash_attn_with_window = True
has_flash_attn_with_softcap = True
