"""The audit log: who did what, in a chain that shows when somebody changes it.

What the rest of rbee uses of it: `Audit`, `open_audit`, and the events of `events.py`.
"""

from rbee.audit.audit import NO_AUDIT, Audit, AuditState
from rbee.audit.opening import OpenAudit, open_audit
from rbee.audit.place import place_in

__all__ = ["NO_AUDIT", "Audit", "AuditState", "OpenAudit", "open_audit", "place_in"]
