"""The hot routes, answered without a wait: what the lane serves by itself.

Rule: both faces answer these routes by the same functions. Here is only who is asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.openai import GenerationRoute
from rbee.supervisor.api.visit import Visit


@dataclass(frozen=True, slots=True)
class HotGet:
    """A route that only reads the supervisor's own state."""

    answer: Callable[[Visit], Answer]
    is_quiet: bool


@dataclass(frozen=True, slots=True)
class HotRoutes:
    """By path, exactly as it is sent."""

    gets: Mapping[str, HotGet]
    posts: Mapping[str, GenerationRoute]

    def has(self, method: str, target: bytes) -> bool:
        path = target.decode("latin-1")
        return path in self.gets if method == "GET" else method == "POST" and path in self.posts
