"""``/health/*``: the three probes of Kubernetes, answered from the supervisor's own state.

Rule: the body says nothing but the status. These routes are open to everybody.
"""

from collections.abc import Callable, Mapping

from rbee.supervisor.api.answers import Answer, json_answer
from rbee.supervisor.api.ports import Operations
from rbee.supervisor.api.problems import RETRY_AFTER_S_DEFAULT
from rbee.supervisor.api.visit import Visit


def health_answers(operations: Operations) -> Mapping[str, Callable[[Visit], Answer]]:
    """What each path answers to GET."""

    def live(_visit: Visit) -> Answer:
        return _status("ok")  # whoever gets this answer has the proof

    def ready(_visit: Visit) -> Answer:
        return _status(operations.readiness())

    def startup(_visit: Visit) -> Answer:
        return _status("ok" if operations.has_started() else "starting")

    return {"/health/live": live, "/health/ready": ready, "/health/startup": startup}


def _status(status: str) -> Answer:
    if status == "ok":
        return json_answer({"status": status})
    headers = [(b"retry-after", b"%d" % RETRY_AFTER_S_DEFAULT)]
    return json_answer({"status": status}, 503, headers)
