"""What the rest of rbee sees of the audit log: two ways to record, and the state it is in."""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from rbee.audit.events import Details, Outcome


@dataclass(frozen=True, slots=True)
class AuditState:
    """How the audit log is, for health, status and metrics."""

    state: Literal["off", "recording", "disk_low", "failing"]
    reason: str = ""  # why it is not recording
    seq: int = 0  # of the last entry that was written
    hash: str = ""  # of the same: kept elsewhere, it anchors the log there
    waiting: int = 0  # events that are not written yet
    lost: int = 0  # that found no room, since the start


class Audit(Protocol):
    """Records events. Any task and any thread may call it."""

    def record(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        """Record an event soon. Never waits and never fails: what is lost is counted, and told.

        Args:
          actor: who did it: "supervisor:PID", "key:ID", "anonymous", "operator:UID".
        """
        ...

    async def record_durably(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        """Record an event, and return when it is on the disk. For what concerns security:
        call it before the answer is sent, or the deed is done.

        Raises:
          AuditError: it is not, and `[audit] on_failure` is "closed". What was to be recorded
            must not be done.
        """
        ...

    @property
    def state(self) -> AuditState: ...


class NoAudit:
    """The audit log that was switched off."""

    def record(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        pass

    async def record_durably(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        pass

    @property
    def state(self) -> AuditState:
        return AuditState("off")


NO_AUDIT: Final = NoAudit()
