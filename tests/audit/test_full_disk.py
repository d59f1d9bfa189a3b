"""The audit log on a disk that is really full."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from rbee.audit import Audit
from rbee.audit.events import ConfigRejected
from rbee.audit.opening import open_audit
from rbee.audit.place import place_in
from rbee.config import AuditConfig
from rbee.errors import AuditError
from tests.api.face import LogLines
from tests.audit.log import entries, good
from tests.audit.test_writer import in_state
from tests.small_disk import fill, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as disk:
        yield disk


async def do_deeds(audit: Audit, count: int) -> None:
    for _ in range(count):
        await audit.record_durably(ConfigRejected(problem="x" * 200), actor="a")


async def test_a_full_disk_refuses_deeds_loses_no_chain_and_heals(disk: Path) -> None:
    log = LogLines()
    with open_audit(AuditConfig(sync_s=0.05), place_in(disk), log) as opened:
        audit = opened.audit
        await audit.record_durably(ConfigRejected(problem="before"), actor="a")
        filler = fill(disk)
        with pytest.raises(AuditError, match="No space left on device"):
            await do_deeds(audit, 1000)
        audit.record(ConfigRejected(problem="meanwhile"), actor="a")
        assert audit.state.reason == "No space left on device"
        filler.unlink()
        await in_state(audit, "recording")
        await audit.record_durably(ConfigRejected(problem="after"), actor="a")
    place = place_in(disk)
    # The log may have begun another file as well, if the disk was looked at while it was filled.
    rejected = [entry for entry in entries(place) if entry["event"] == "config.rejected"]
    told = [entry["details"]["problem"] for entry in rejected]
    assert told[0] == "before"
    assert told[-2:] == ["meanwhile", "after"]
    good(place)
    assert [line[1] for line in log.lines].count("audit_failing") >= 1


async def test_a_log_that_fills_its_disk_ends_in_whole_lines(disk: Path) -> None:
    place = place_in(disk)
    with open_audit(AuditConfig(on_failure="open"), place, LogLines()) as opened:
        audit = opened.audit
        for _ in range(2000):
            audit.record(ConfigRejected(problem="x" * 200), actor="a")
        await in_state(audit, "failing")
        assert audit.state.seq > 100
    data = b"".join(path.read_bytes() for path in sorted(place.folder.glob("*.jsonl")))
    assert data.endswith(b"\n")
    with trio.fail_after(5):
        good(place)
