"""The jinja2 environment in which a chat template runs: what it may use, and how much.

Rule 1: what is not named here is not there: filters, globals, attributes and methods.
Rule 2: no value may be larger than `VALUE_WEIGHT_MAX`, counted as if nothing in it were
        shared: printing or comparing a value takes as long as its weight.
Rule 3: whatever repeats (an item of a loop, a call) and whatever makes a value passes the
        `Meter`, which ends the rendering after `RENDER_CPU_S_MAX` or `MADE_BYTES_MAX`.
        What happens between two such points is bounded by Rule 2 and the source's length.
"""
# ruff: noqa: ANN401 - a template's values are of any type

import functools
import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import BuiltinMethodType, GeneratorType
from typing import Any, Final, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from rbee.engine.chat_filters import BOUNDED_FILTERS, BOUNDED_METHODS, OverLimitError, binary

RENDER_CPU_S_MAX: Final = 0.5
MADE_BYTES_MAX: Final = 64 * 1024 * 1024  # by one rendering, also what is thrown away again
VALUE_WEIGHT_MAX: Final = 4 * 1024 * 1024
VALUE_DEPTH_MAX: Final = 64
ITEMS_MAX: Final = 200_000
INTEGER_BITS_MAX: Final = 16_384

_NODE_WEIGHT: Final = 16  # of anything but a text, in characters

# Keywords that compiled templates add to calls; `Context.call` takes them out again.
_OF_JINJA2: Final = frozenset(("_loop_vars", "_block_vars"))

_FILTERS: Final = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items",
    "last", "length", "lower", "map", "max", "min", "reject", "rejectattr", "reverse",
    "select", "selectattr", "string", "title", "trim", "unique", "upper", "wordcount",
)  # fmt: skip

_ATTRIBUTES: Final[dict[type, frozenset[str]]] = {
    str: frozenset((
        "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal",
        "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower",
        "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
        "rpartition", "rsplit", "rstrip", "split", "startswith", "strip", "title", "upper",
    )),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
    LoopContext: frozenset((
        "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length",
        "nextitem", "previtem", "revindex", "revindex0",
    )),
}  # fmt: skip


class Meter:
    """How much one rendering has taken."""

    def __init__(self) -> None:
        self.stop()

    def start(self) -> None:
        self._end_s = time.thread_time() + RENDER_CPU_S_MAX
        self._made_bytes = 0

    def stop(self) -> None:
        """Constants are worked out at compile time: their size counts, not their time."""
        self._end_s = math.inf
        self._made_bytes = 0

    def tick(self) -> None:
        """
        Raises:
          OverLimitError: the time is over.
        """
        if time.thread_time() > self._end_s:
            raise OverLimitError(f"more than {RENDER_CPU_S_MAX} s of CPU time")

    def admit(self, value: Any) -> Any:
        """Let a new value pass if it is small enough.

        Raises:
          OverLimitError: it is not, or all together are not, or the time is over.
        """
        self.tick()
        weigh(value)
        if isinstance(value, str):
            self._made_bytes += len(value)
        elif isinstance(value, list | tuple | dict):
            self._made_bytes += 8 * len(value)
        if self._made_bytes > MADE_BYTES_MAX:
            raise OverLimitError(f"more than {MADE_BYTES_MAX} bytes of values")
        return value

    def paced(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop.

        Raises:
          OverLimitError: more than `ITEMS_MAX`, or the time is over.
        """
        for number, item in enumerate(items):
            if number >= ITEMS_MAX:
                raise OverLimitError(f"a loop of more than {ITEMS_MAX} items")
            self.tick()
            yield item


def weigh(value: Any, depth: int = 0) -> int:
    """How many characters a value is worth, counted as often as they stand in it.

    Raises:
      OverLimitError: more than `VALUE_WEIGHT_MAX`.
    """
    weight = _NODE_WEIGHT
    if isinstance(value, str):
        weight += len(value)
    elif isinstance(value, list | tuple | dict):
        if depth > VALUE_DEPTH_MAX:
            raise OverLimitError(f"a value nested deeper than {VALUE_DEPTH_MAX}")
        parts = itertools.chain(value, value.values()) if isinstance(value, dict) else value
        for part in parts:
            weight += weigh(part, depth + 1)
            if weight > VALUE_WEIGHT_MAX:
                break
    elif isinstance(value, int) and value.bit_length() > INTEGER_BITS_MAX:
        raise OverLimitError(f"an integer of more than {INTEGER_BITS_MAX} bits")
    if weight > VALUE_WEIGHT_MAX + _NODE_WEIGHT:
        raise OverLimitError(f"a value of more than {VALUE_WEIGHT_MAX} characters")
    return weight


class _Namespace(Namespace):
    """``namespace()``. Several may hold each other: printing one must not print them all."""

    def __repr__(self) -> str:
        return "<namespace>"


class _GenerationExtension(Extension):
    """``{% generation %}``: marks the assistant's words for training; nothing here."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment. `with_checks` must have seen what it compiles."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, meter: Meter, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _GenerationExtension],
            finalize=self._finalize,
        )
        self._meter = meter
        allowed = {name: FILTERS[name] for name in _FILTERS}
        self.filters = {
            name: _guarded(meter, function)
            for name, function in (allowed | BOUNDED_FILTERS).items()
        }
        self.filters |= {"_admit": meter.admit, "_paced": meter.paced}
        self.globals = {
            "range": self.globals["range"],  # the sandbox's own, of 100 000 numbers at most
            "dict": dict,
            "namespace": _Namespace,
            "strftime_now": lambda pattern: _strftime(now(), pattern),
        }

    def concat(self, parts: Iterable[str]) -> str:
        """What a block or macro has written, as one text."""
        return str(self._meter.admit(BOUNDED_METHODS["join"]("", parts)))

    def call_binop(  # the context is jinja2's
        self,
        context: Context,  # noqa: ARG002
        operator: str,
        left: Any,
        right: Any,
    ) -> Any:
        return self._meter.admit(binary(operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063
        """Call a macro, a method or a global. The names leave all others to the keywords."""
        __self._meter.tick()
        weigh([args, [value for name, value in kwargs.items() if name not in _OF_JINJA2]])
        if isinstance(__obj, BuiltinMethodType) and isinstance(__obj.__self__, str):
            bounded = BOUNDED_METHODS.get(__obj.__name__)
            if bounded is not None:
                __obj = functools.partial(bounded, __obj.__self__)
        return __self._meter.admit(super().call(__context, __obj, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return isinstance(obj, Namespace) or attr in _ATTRIBUTES.get(type(obj), ())

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Refuse at once; jinja2 alone would write nothing for ``{{ x.__class__ }}``."""
        raise SecurityError(f"{attribute} of {type(obj).__name__} is not there for templates")

    def wrap_str_format(self, value: Any) -> None:
        """``str.format`` is not there: its widths have no bound."""

    def _finalize(self, value: Any) -> str:
        """What ``{{ value }}`` writes."""
        return value if isinstance(value, str) else str(self._meter.admit(str(value)))


def with_checks(tree: nodes.Template) -> nodes.Template:
    """The same template, with calls to the meter where jinja2 has no hook for one."""
    checked = _Checks().visit(tree)
    assert isinstance(checked, nodes.Template)
    return checked


class _Checks(NodeTransformer):
    """Puts loops, literals, comparisons, slices and ``~`` through filters of the sandbox."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_paced")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_admit") if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_admit") if isinstance(node.arg, nodes.Slice) else node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.dyn_args is not None:
            node.dyn_args = _filtered(node.dyn_args, "list")
        return node

    def _visit_value(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_admit")

    visit_List = visit_Dict = visit_Compare = visit_Test = _visit_value  # noqa: N815


def _filtered(node: nodes.Node, name: str) -> nodes.Expr:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _guarded(meter: Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result has a bound. Lazy results are worked out at once."""

    @functools.wraps(function)  # jinja2 marks what else a filter is given by an attribute
    def guarded(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, GeneratorType | map | reversed):
            result = list(meter.paced(result))
        return meter.admit(result)

    return guarded


def _strftime(now: datetime, pattern: str) -> str:
    """The C library takes widths, and has no bound for them."""
    if len(pattern) > 256 or not re.fullmatch(r"(?:[^%]|%-?[A-Za-z%])*", pattern):
        raise OverLimitError("a date pattern with more than plain fields")
    return now.strftime(pattern)
