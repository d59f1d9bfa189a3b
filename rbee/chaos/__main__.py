"""``python -m rbee.chaos SCENARIO SEED FOLDER SHORT``: one drill; its report on stdout, as JSON."""

import sys
from pathlib import Path
from typing import Final

import msgspec
import trio

from rbee.chaos.catalogue import SCENARIOS
from rbee.chaos.drill import run_drill
from rbee.chaos.preparations import prepare_process

_EXIT_USAGE: Final = 64


def main(arguments: list[str]) -> int:
    """Run one drill."""
    if len(arguments) != 4 or arguments[0] not in SCENARIOS or not arguments[1].isdecimal():
        print("rbee.chaos is started by `rbee chaos`", file=sys.stderr)  # noqa: T201
        return _EXIT_USAGE
    scenario = SCENARIOS[arguments[0]]
    prepare_process()
    folder, short = map(Path, arguments[2:])
    report = trio.run(run_drill, scenario, int(arguments[1]), folder, short)
    sys.stdout.buffer.write(msgspec.json.encode(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
