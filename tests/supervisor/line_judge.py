"""Watches a line from outside: is each turn given to one who may have it?"""

from collections.abc import Callable
from typing import Final

from rbee.rate_limits import Priority

# How often others may have their turns while somebody of a class waits. As documented: every fifth
# is a normal one at least, every tenth a low one; a high one waits for one of each at most.
PASSED_OVER_MAX: Final = {Priority.HIGH: 2, Priority.NORMAL: 4, Priority.LOW: 9}


class LineJudge:
    """Told of all that comes and goes, and told by nobody whose turn it is.

    Args:
      expect: takes what must hold, and what is wrong if it does not.
    """

    def __init__(self, expect: Callable[[bool, str], None]) -> None:
        self._expect = expect
        self._returned: list[int] = []
        self._waiting: dict[Priority, list[int]] = {each: [] for each in Priority}
        self._passed_over = dict.fromkeys(Priority, 0)

    def ids(self) -> list[int]:
        """Of all that wait, in no order."""
        return [each for some in (self._returned, *self._waiting.values()) for each in some]

    def came(self, request_id: int, priority: Priority) -> None:
        self._waiting[priority].append(request_id)
        if len(self._waiting[priority]) == 1:
            self._passed_over[priority] = 0

    def came_back(self, request_id: int) -> None:
        self._returned.append(request_id)

    def gave_up(self, request_id: int) -> None:
        for some in (self._returned, *self._waiting.values()):
            if request_id in some:
                some.remove(request_id)

    def was_served(self, request_id: int) -> None:
        if self._returned:
            is_right = request_id == self._returned[-1]
            self._expect(is_right, f"{request_id} goes before one that came back")
        else:
            self._check_turn(request_id)
        self.gave_up(request_id)

    def _check_turn(self, request_id: int) -> None:
        for priority, waiting in self._waiting.items():
            if request_id in waiting:
                self._passed_over[priority] = 0
                is_first = request_id == waiting[0]
                self._expect(is_first, f"{request_id} goes before who came first in its class")
            elif waiting:
                count = self._passed_over[priority] = self._passed_over[priority] + 1
                is_fair = count <= PASSED_OVER_MAX[priority]
                self._expect(is_fair, f"the class {priority} is passed over {count} times")
