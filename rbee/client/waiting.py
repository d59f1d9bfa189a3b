"""How trio and asyncio wait: the only file of the client that knows either."""

import asyncio
import sys
from typing import Protocol, TypeVar

from rbee.client.link import Steps, Wait
from rbee.client.talk import Talk

T = TypeVar("T")


class Waiter(Protocol):
    """A library of tasks, as far as a client needs it."""

    async def checkpoint(self) -> None:
        """Let others run, and be cancelled if that is asked for."""
        ...

    async def wait(self, wait: Wait) -> bool:
        """Returns: whether the descriptor is readable, rather than the time over."""
        ...


async def run(talk: Talk, steps: Steps[T]) -> T:
    """Run what may have to wait. Cancelled, it ends the request."""
    waiter = _current_waiter()
    try:
        await waiter.checkpoint()
        wait = next(steps)
        while True:
            wait = steps.send(await waiter.wait(wait))
    except StopIteration as end:
        result: T = end.value
        return result
    except BaseException:
        steps.close()
        talk.leave()
        raise


class _Asyncio:
    async def checkpoint(self) -> None:
        await asyncio.sleep(0)

    async def wait(self, wait: Wait) -> bool:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(wait.fd, ready.set)
        try:
            async with asyncio.timeout(wait.timeout_s):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(wait.fd)
        return True


class _Trio:
    async def checkpoint(self) -> None:
        import trio  # noqa: PLC0415  # programs on asyncio need none

        await trio.lowlevel.checkpoint()

    async def wait(self, wait: Wait) -> bool:
        import trio  # noqa: PLC0415

        timeout_s = float("inf") if wait.timeout_s is None else max(0.0, wait.timeout_s)
        with trio.move_on_after(timeout_s) as limit:
            await trio.lowlevel.wait_readable(wait.fd)
        return not limit.cancelled_caught


def _current_waiter() -> Waiter:
    """That of the library which runs this task. In a guest run of trio, asyncio runs, too."""
    trio = sys.modules.get("trio")
    return _Trio() if trio is not None and trio.lowlevel.in_trio_task() else _Asyncio()
