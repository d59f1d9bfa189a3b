"""What a query asks for, read off its text: names, labels and values. For the tests of deploy/.

It knows no grammar: words, strings and parentheses are enough to hold a query against the table
of metrics. What it does not know it does not pass over.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# All of PromQL that our queries use.
WORDS = frozenset({
    "and", "or", "unless", "by", "without", "on", "group_left", "group_right", "ignoring", "bool",
    "sum", "min", "max", "count", "avg", "round", "rate", "increase", "changes", "time", "vector",
    "histogram_quantile",
})  # fmt: skip
GROUPINGS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<range>\[[^\]]*\])
    | (?P<number>\d[\d.]*[a-z]*)
    | (?P<word>[a-zA-Z_:][\w:]*)
    | (?P<sign>[=!<>~]+|.)
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Matcher:
    """``label="value"`` of one selector."""

    name: str
    label: str
    sign: str
    value: str

    @property
    def values(self) -> list[str]:
        """Those that it names; none where it holds a variable of the dashboard."""
        if "$" in self.value:
            return []
        return self.value.split("|") if "~" in self.sign else [self.value]


@dataclass(frozen=True, slots=True)
class Grouping:
    """``by (labels)`` or the like, and all names that it speaks of."""

    word: str
    labels: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """What stands in one expression."""

    names: tuple[str, ...]
    matchers: tuple[Matcher, ...]
    groupings: tuple[Grouping, ...]


def read_query(text: str) -> Query:
    """Take a query apart. Every word that is not PromQL's is taken for the name of a metric."""
    tokens = list(_tokens(text))
    names: list[tuple[int, str]] = []
    matchers: list[Matcher] = []
    found: list[tuple[int, str, tuple[str, ...], int]] = []
    at = 0
    while at < len(tokens):
        kind, token = tokens[at]
        if kind == "word" and token in GROUPINGS:
            end = _closing(tokens, at + 1)
            labels = tuple(word for kind, word in tokens[at + 2 : end] if kind == "word")
            found.append((at, token, labels, end))
            at = end
        elif kind == "word" and token not in WORDS:
            names.append((at, token))
        elif token == "{":
            end = at + [word for _, word in tokens[at:]].index("}")
            for label, sign, value in _triples(tokens[at + 1 : end]):
                matchers.append(Matcher(names[-1][1], label, sign, value))
            at = end
        at += 1
    groupings = []
    for _, word, labels, end in found:
        # Of an aggregation what is in its parentheses; of a join both of its sides.
        inside = (end + 1, _closing(tokens, end + 1)) if word in {"by", "without"} else (0, at)
        spoken = tuple(name for place, name in names if inside[0] <= place <= inside[1])
        groupings.append(Grouping(word, labels, spoken))
    return Query(tuple(name for _, name in names), tuple(matchers), tuple(groupings))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text.strip()):
        assert match.lastgroup is not None
        yield match.lastgroup, match[match.lastgroup]


def _closing(tokens: list[tuple[str, str]], opening: int) -> int:
    assert tokens[opening][1] == "(", tokens[opening:]
    depth = 0
    for at in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[at][1], 0)
        if depth == 0:
            return at
    raise AssertionError(f"no end of {tokens[opening:]}")


def _triples(tokens: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    words = [word for _, word in tokens if word != ","]
    assert len(words) % 3 == 0, words
    for label, sign, value in zip(words[::3], words[1::3], words[2::3], strict=True):
        yield label, sign, value.strip('"')
