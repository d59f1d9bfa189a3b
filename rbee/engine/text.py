"""From token pieces to text that may be sent: whole characters, and nothing of a stop string.

Rule 1: all that was fed, decoded as a whole with errors="replace", is what comes out, up to
        the first stop string. How the bytes were cut into pieces changes nothing.
Rule 2: the first stop string is the one whose end comes first; of several that end together
        the one that starts first. An empty stop string stops nothing.
Rule 3: the cost of a piece does not depend on how long the answer is.
"""

import codecs
import re
from typing import Final

_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


class _Node:
    """A prefix of a stop string, in an automaton after Aho and Corasick.

    Source: Aho and Corasick 1975, doi:10.1145/360825.360855, algorithms 1 to 3.
    """

    __slots__ = ("depth", "fallback", "matched", "next")

    def __init__(self, depth: int) -> None:
        self.depth = depth  # characters of the prefix
        self.next: dict[str, _Node] = {}
        self.fallback: _Node | None = None  # the longest proper suffix that is a prefix too
        self.matched = 0  # characters of the longest stop string that ends here; 0: none does


class TextStream:
    """The text of one answer."""

    __slots__ = ("_beginning", "_decoder", "_has_half_character", "_held", "_node", "_root",
                 "is_stopped")  # fmt: skip

    def __init__(self, stop: tuple[str, ...]) -> None:
        self.is_stopped = False  # a stop string was found; read only
        self._decoder = _new_decoder("replace")
        self._has_half_character = False  # the decoder holds bytes
        self._held = ""  # the end of the text: a prefix of a stop string
        strings = tuple(text for text in stop if text)
        self._root = _automaton(strings) if strings else None
        self._node = self._root
        if strings:
            firsts = "".join(re.escape(text[0]) for text in strings)
            self._beginning = re.compile(f"[{firsts}]").search

    def feed(self, piece: bytes) -> str:
        """Take a token's bytes; give the text that is free to go."""
        if self._has_half_character:
            text = self._decode(piece)
        else:
            try:
                text = piece.decode()
            except UnicodeDecodeError:
                text = self._decode(piece)
        return text if self._root is None else self._match(text)

    def flush(self) -> str:
        """The answer is over: give what was held back."""
        rest = self.feed(b"") + self._end(self._decoder.decode(b"", final=True))
        self._has_half_character = False
        return rest

    def _decode(self, piece: bytes) -> str:
        text = self._decoder.decode(piece)
        self._has_half_character = bool(self._decoder.getstate()[0])
        return text

    def _end(self, text: str) -> str:
        if self._root is None:
            return text
        free = self._match(text)
        held, self._held, self._node = self._held, "", self._root
        return free + held

    def _match(self, text: str) -> str:
        """Hold back what may become a stop string; stop when one is there."""
        root, node = self._root, self._node
        assert root is not None
        assert node is not None
        if self.is_stopped:
            return ""
        if node is root and self._beginning(text) is None:
            return text
        for place, character in enumerate(text, start=1):
            while character not in node.next and node.fallback is not None:
                node = node.fallback
            node = node.next.get(character, root)
            if node.matched:
                self.is_stopped = True
                whole = self._held + text[:place]
                self._held = ""
                return whole[: len(whole) - node.matched]
        self._node = node
        whole = self._held + text
        free = len(whole) - node.depth
        self._held = whole[free:]
        return whole[:free]


def _automaton(strings: tuple[str, ...]) -> _Node:
    root = _Node(0)
    for text in strings:
        node = root
        for character in text:
            node = node.next.setdefault(character, _Node(node.depth + 1))
        node.matched = len(text)
    level = list(root.next.values())
    for node in level:
        node.fallback = root
    for node in level:  # grows as it goes: breadth first
        for character, child in node.next.items():
            child.fallback = _fallback(node, character, root)
            # A shorter string that ends here too starts later: it counts only on its own.
            child.matched = child.matched or child.fallback.matched
            level.append(child)
    return root


def _fallback(node: _Node, character: str, root: _Node) -> _Node:
    shorter = node.fallback
    while shorter is not None:
        if character in shorter.next:
            return shorter.next[character]
        shorter = shorter.fallback
    return root
