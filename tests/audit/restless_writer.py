"""A process that writes an audit log until it is killed, and says what it was told is recorded.

Two sides of it: deeds that it waits for, printed once they are on the disk, and events that it
does not wait for.
"""

import sys
from pathlib import Path

import trio

from rbee.audit.events import ConfigRejected
from rbee.audit.opening import open_audit
from rbee.audit.place import place_in
from rbee.config import AuditConfig
from tests.api.face import LogLines


async def main(state_dir: Path, begin: int) -> None:
    config = AuditConfig(file_bytes_max=16_384, files_max=10_000, sync_s=0.02)
    with open_audit(config, place_in(state_dir), LogLines()) as opened:
        audit = opened.audit
        number = begin
        while True:
            for _ in range(20):
                number += 1
                audit.record(ConfigRejected(problem="ordinary" * 10), actor="writer")
            await audit.record_durably(ConfigRejected(problem=f"deed {number}"), actor="writer")
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
