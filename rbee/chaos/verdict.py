"""The one judge: what was seen in a drill against what must come of its fault. Pure."""

from collections import Counter
from dataclasses import dataclass, field

from rbee.chaos.answers import BROKEN_OFF, End
from rbee.chaos.clients import Tally
from rbee.chaos.scenario import Expected, Scenario


@dataclass(slots=True)
class Findings:
    """What was seen. None: it was not come to."""

    tally: Tally = field(default_factory=Tally)
    errors: Counter[str] = field(default_factory=Counter)  # in the server's log, by event
    away_s: float | None = None  # for so long no new request was served
    healed_s: float | None = None  # since the fault: every slot has its worker
    restarts: int | None = None
    descriptors_more: int | None = None
    strays: list[str] = field(default_factory=list)  # while it served
    exit_code: int | None = None
    end_s: float | None = None  # from the signal that ended it
    left: list[str] = field(default_factory=list)  # after its end
    audit: str = ""  # what is wrong with its audit log
    broken: str = ""  # the drill could not be held to its end


def judge(scenario: Scenario, found: Findings) -> list[str]:
    """Returns: what is not as it must be; empty when all is well."""
    expected = scenario.expected
    problems = [each for each in (found.broken, found.audit) if each]
    problems += _of_requests(scenario, found.tally)
    problems += _of_log(expected, found.errors)
    problems += [f"left while it served: {each}" for each in found.strays]
    problems += [f"left behind: {each}" for each in found.left]
    if not found.broken:
        problems += _of_recovery(scenario, found)
        problems += _of_ending(expected, found)
    return problems


def _of_requests(scenario: Scenario, tally: Tally) -> list[str]:
    expected = scenario.expected
    # Where the server was killed an answer may break off; it may never be another one.
    lost = [each for each in tally.lost if not (expected.may_cut and each.startswith(BROKEN_OFF))]
    problems = [f"lost: {each}" for each in lost]
    if tally.not_taken and scenario.ends == "after" and not expected.may_refuse_connections:
        problems.append(f"{tally.not_taken} connections were not taken")
    problems += [
        f"{count} requests were refused as {code!r}"
        for code, count in tally.refusals.items()
        if code not in expected.refusals
    ]
    return problems


def _of_log(expected: Expected, errors: Counter[str]) -> list[str]:
    allowed = expected.errors | expected.errors_too
    problems = [
        f"the log has {name!r} at level error, {count} times"
        for name, count in errors.items()
        if name not in allowed
    ]
    return problems + [f"the log never told {name!r}" for name in expected.errors - set(errors)]


def _of_recovery(scenario: Scenario, found: Findings) -> list[str]:
    expected = scenario.expected
    if scenario.ends == "by fault":
        return []
    problems = []
    for what, seen_s, most_s in (
        ("no request was served for", found.away_s, expected.away_s),
        ("a slot had no worker that serves for", found.healed_s, expected.healed_s),
    ):
        if seen_s is None or seen_s > most_s:
            problems.append(f"{what} {seen_s or 0:.1f} s, allowed are {most_s:g} s")
    least, most = expected.restarts
    if found.restarts is None or not least <= found.restarts <= most:
        problems.append(f"{found.restarts} restarts, expected {least} to {most}")
    more = found.descriptors_more
    if more is not None and more > expected.descriptors_more:
        problems.append(f"{more} descriptors more than before the load")
    if found.tally.ends[End.SERVED] == 0 and scenario.load.clients:
        problems.append("not one request was served: the drill shows nothing")
    return problems


def _of_ending(expected: Expected, found: Findings) -> list[str]:
    problems = []
    if found.exit_code != expected.exit_code:
        problems.append(f"exit code {found.exit_code}, expected {expected.exit_code}")
    if found.end_s is not None and found.end_s > expected.end_s:
        problems.append(f"it ended {found.end_s:.1f} s after its signal, not {expected.end_s:g} s")
    return problems
