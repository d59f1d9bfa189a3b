"""Looks at each turn that the pool gives to one who waits: no class waits for ever, none overtakes.

It stands in the place of the common backlog of `Dispatch`, does the same, and tells a judge.
"""

from collections.abc import Callable
from typing import Any

from rbee.rate_limits import Priority
from rbee.supervisor.backlog import Backlog, Bound
from tests.supervisor.line_judge import LineJudge


class WatchedBacklog(Backlog):
    def __init__(self, bound: Bound, expect: Callable[[bool, str], None]) -> None:
        super().__init__(bound)
        self._expect = expect
        self._judges: dict[str, LineJudge] = {}

    def add(
        self,
        model: str,
        request_id: int,
        tokens: int = 0,
        priority: Priority = Priority.NORMAL,
    ) -> None:
        super().add(model, request_id, tokens, priority)
        self._judge(model).came(request_id, priority)

    def add_first(self, model: str, request_id: int, tokens: int = 0) -> None:
        super().add_first(model, request_id, tokens)
        self._judge(model).came_back(request_id)

    def remove(self, model: str, request_id: int, **how: Any) -> bool:
        was_there = super().remove(model, request_id, **how)
        if was_there:
            judge = self._judge(model)
            (judge.was_served if how.get("is_served") else judge.gave_up)(request_id)
        return was_there

    def _judge(self, model: str) -> LineJudge:
        return self._judges.setdefault(model, LineJudge(self._expect))
