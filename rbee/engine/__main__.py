"""``python -m rbee.engine BOOT_FD LIFE_FD``: started by the supervisor, not by hand."""

import sys

from rbee.engine.boot import main
from rbee.errors import ExitCode

if len(sys.argv) != 3 or not all(argument.isdecimal() for argument in sys.argv[1:]):
    print("rbee.engine is started by `rbee serve`", file=sys.stderr)  # noqa: T201
    sys.exit(ExitCode.USAGE)
sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
