"""From the figures of rounds to those of a table. Pure."""

import math
from collections.abc import Mapping, Sequence

Figures = Mapping[str, float]
"""What one round found. A figure that a server does not have is left out."""

Row = tuple[str, str, str]
"""Title, name of the figure, and how it is written."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not below ``percent`` of them; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    """Of two in the middle their mean; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def table(title: str, rows: Sequence[Row], rounds: Mapping[str, Sequence[Figures]]) -> str:
    """Medians over each server's rounds, and the first server's as parts of the others'."""
    first, *others = rounds
    heads = [title, *rounds, *(f"{first} / {other}" for other in others)]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, figure, form in rows:
        found = {server: _median_of(figure, rounds[server]) for server in rounds}
        cells = [_cell(value, form) for value in found.values()]
        cells += [_ratio(found[first], found[other]) for other in others]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _median_of(figure: str, rounds: Sequence[Figures]) -> float:
    return median([each[figure] for each in rounds if each.get(figure) is not None])


def _cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def _ratio(value: float, other: float) -> str:
    return "-" if math.isnan(value) or math.isnan(other) or not other else f"{value / other:.2f}"
