"""What the audit log hears of the supervisor itself."""

import hashlib
import os
import time

import msgspec

from rbee import __version__
from rbee.audit import Audit
from rbee.audit.events import ConfigLoaded, Outcome, SupervisorStart, SupervisorStop
from rbee.config import Config, model_name
from rbee.errors import ExitCode


class Presence:
    """Records the supervisor's start and its end."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._actor = actor()
        self._started_s = time.monotonic()

    def config_loaded(self, config: Config) -> None:
        text = msgspec.json.encode(config)
        details = ConfigLoaded(
            sha256=hashlib.sha256(text).hexdigest(),
            models=tuple(model_name(model) for model in config.model),
        )
        self._audit.record(details, actor=self._actor)

    def started(self, url: str) -> None:
        details = SupervisorStart(pid=os.getpid(), version=__version__, url=url)
        self._audit.record(details, actor=self._actor)

    def stopped(self, code: ExitCode) -> None:
        uptime_ms = round((time.monotonic() - self._started_s) * 1000)
        details = SupervisorStop(pid=os.getpid(), exit_code=code, uptime_ms=uptime_ms)
        outcome = Outcome.SUCCESS if code is ExitCode.OK else Outcome.FAILURE
        self._audit.record(details, actor=self._actor, outcome=outcome)


def actor() -> str:
    """How the audit log names this supervisor."""
    return f"supervisor:{os.getpid()}"
