"""The configuration of a server under test, and what lies there before its start. Values only."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_CONFIG: Final = """\
[server]
bind = "127.0.0.1:0"
run_dir = "{run_dir}"
state_dir = "{state_dir}"
drain_s = 6
dumpable = true  # a drill counts its descriptors from outside
{setting.server}
[audit]
{setting.audit}
[worker]
beat_s = 1
step_stall_s = 3
step_stall_s_min = 3
{setting.worker}
[restart]
{setting.restart}
[[model]]
ref = "{setting.engine}"
name = "first"
slots = {setting.slots}
{setting.model}
[model.synthetic]
tokens_per_s = {setting.tokens_per_s}
{setting.synthetic}
"""
_SECOND: Final = """
[[model]]
name = "second"
{second}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The configuration of the server, as lines of its TOML sections."""

    slots: int = 2
    engine: Literal["synthetic", "bee-tiny"] = "synthetic"
    tokens_per_s: float = 100.0  # of the synthetic engine
    server: str = ""
    worker: str = ""
    restart: str = ""
    audit: str = ""
    model: str = ""
    synthetic: str = ""
    second: str = ""  # lines of a second [[model]], "second"
    more: str = ""  # sections of its own
    prepare: Callable[[Path], None] | None = None  # writes to {folder} before it starts
    small_disk: Literal["", "run", "state"] = ""  # which directory lies on one
    has_key: bool = False  # it asks for keys, and the drill has one of an admin
    has_tls: bool = False  # under the certificate that `prepare` makes
    has_own_clock: bool = False  # `Server.move_clock` moves it

    def as_toml(self, folder: Path, run_dir: Path, state_dir: Path) -> str:
        text = _CONFIG.format(setting=self, run_dir=run_dir, state_dir=state_dir)
        if self.second:
            text += _SECOND.format(second=self.second)
        return (text + self.more).replace("{folder}", str(folder))
