"""The limit on open files: taken as far as we are allowed, and checked before anything opens."""

import resource
from typing import Final

from rbee.errors import ConfigError
from rbee.supervisor.limits import descriptors_problem

# What one worker costs the supervisor: three of its ZeroMQ link, a pidfd, two pipes, and as much
# again while its successor starts.
PER_WORKER: Final = 12

# For everything else, with some room for clients: fewer would serve nobody.
KEPT: Final = 256

# Beyond what a box with a few GPUs can use; some programs walk through all of them.
WANTED_MAX: Final = 1 << 20


def raise_descriptor_limit() -> int:
    """Raise our soft limit to the hard one, which needs no right. Returns the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = _least(hard, WANTED_MAX)
    if _least(soft, goal) == goal:
        return goal if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    except (OSError, ValueError):  # a container may forbid even that
        return soft
    return goal


def check_descriptors(limit: int, workers: int) -> None:
    """Raises: ConfigError: the limit leaves no room for that many workers and their clients."""
    problem = descriptors_problem(limit, workers, PER_WORKER, KEPT)
    if problem:
        raise ConfigError(problem)


def _least(first: int, second: int) -> int:
    """The smaller of two limits; ``RLIM_INFINITY`` is the largest of all, whatever its number."""
    finite = [each for each in (first, second) if each != resource.RLIM_INFINITY]
    return min(finite) if finite else resource.RLIM_INFINITY
