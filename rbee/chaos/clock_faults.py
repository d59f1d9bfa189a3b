"""The supervisor's wall clock jumps. How long something takes is measured by another clock."""

from typing import Final

import trio

from rbee.chaos.clock import DAY_S
from rbee.chaos.deeds import Deeds, check_doors_closed, door
from rbee.chaos.scene import Scene
from rbee.chaos.server import DrillError

# Time enough to draw the wrong conclusions: workers beat each second, and count as hung after 3 s.
HELD_S: Final = 4.0


async def jump(scene: Scene) -> None:
    """The supervisor's wall clock jumps forwards by a day, back by two, and right again."""
    deeds = Deeds(scene)
    short_lived = await deeds.make_short_lived(DAY_S / 2)
    await scene.moment()
    for days, is_over in ((1, True), (-1, False), (0, False)):
        scene.server.move_clock(days * DAY_S)
        await trio.sleep(HELD_S)
        if not is_over and (status := await door(scene.server, short_lived)) != 200:
            raise DrillError(f"a key that is good at day {days:+} gets status {status}")
        if is_over:
            await check_doors_closed(scene.server, short_lived)
        await deeds.make_until_done()
        await deeds.check_keys()
    scene.strike()
    deeds.tell()
