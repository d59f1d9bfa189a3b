"""JSON schemas as grammars: which tokens may come next in an answer. For all engines.

Rule 1: this is the only file that knows llguidance.
Rule 2: a schema comes from a client. Its size, depth and cost are bounded, and whatever the
        library makes of it, a panic of its Rust code too, is an error of that one request.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol, TypeVar

import llguidance
import numpy as np
from numpy.typing import NDArray

from rbee.ask import SCHEMA_BYTES_MAX
from rbee.errors import ErrorCode, RequestError

DEPTH_MAX: Final = 32  # of nested objects and arrays in a schema
GRAMMARS_KEPT: Final = 32  # compiled, for requests with the same schema and salt
# Between any two parts of JSON. Models in doubt write white space until their tokens are used up.
WHITE_SPACE: Final = r"[\x20\x0A\x0D\x09]{1,32}"
REASON_CHARACTERS_MAX: Final = 200


# llguidance's own defaults, named so that an update cannot raise them in silence. Its figures:
# fuel burns at some 50,000 a millisecond when compiling, 14,000 in a step.
def _limits() -> llguidance.LLParserLimits:
    return llguidance.LLParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=50_000,  # one or two kilobytes each
        max_grammar_size=500_000,
        verbose_errors=False,  # a verbose error quotes the schema
    )


_Nested = dict[str, Any] | list[Any]
_Result = TypeVar("_Result")


class Grammar:
    """One answer on its way through a schema."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros((vocabulary_size + 31) // 32, np.int32)
        self._size = vocabulary_size

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete, and nothing but its end may follow."""
        return bool(self._matcher.is_stopped())

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next: bool [vocabulary]. The end's too, where it may come.

        Raises:
          RequestError: the schema is too complex at this place.
        """
        bits = self._bits
        _guarded(lambda: self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes))
        self._check()
        flags = np.unpackbits(bits.view(np.uint8), bitorder="little", count=self._size)
        return flags.view(np.bool_)

    def forbid(self, scores: NDArray[np.float32]) -> None:
        """Set the scores of all tokens that may not come next to -inf, in place.

        Args:
          scores: float32 [vocabulary or more]; what is past the vocabulary may never come.
        Raises:
          RequestError: the schema is too complex at this place.
        """
        scores[: self._size][~self.mask()] = -np.inf
        scores[self._size :] = -np.inf

    def advance(self, token_id: int) -> None:
        """Go past a token of the answer.

        Raises:
          RequestError: it does not fit the schema, or the schema is too complex.
        """
        _guarded(lambda: self._matcher.consume_token(token_id))
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused("the answer cannot go on by this schema", self._matcher.get_error())


class GrammarTokenizer(Protocol):
    """What grammars need of an engine's tokenizer."""

    @property
    def special_ids(self) -> Collection[int]:
        """Tokens that stand for no text, and so are never part of JSON."""
        ...

    @property
    def end_ids(self) -> Collection[int]:
        """Tokens that end an answer; at least one."""
        ...

    @property
    def vocabulary_size(self) -> int: ...

    def piece(self, token_id: int) -> bytes: ...

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]: ...


class GrammarFactory:
    """Makes grammars for one vocabulary.

    The vocabulary is compiled when the first schema comes: that is linear in its size.
    """

    def __init__(self, tokenizer: GrammarTokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[tuple[bytes, str], llguidance.LLMatcher] = OrderedDict()

    def prepare(self) -> None:
        """Compile the vocabulary now, so that no request waits for it."""
        if self._vocabulary is None:
            wrapped = _Vocabulary(self._tokenizer)
            self._vocabulary = llguidance.LLTokenizer(wrapped, eos_token=wrapped.end_ids)

    def json_schema(self, schema: str, token_ids: Sequence[int] = (), salt: bytes = b"") -> Grammar:
        """The grammar of a JSON Schema, gone past ``token_ids`` of the answer already.

        Args:
          salt: what was compiled is kept for those who have the same one.
        Raises:
          RequestError: not a schema, too large, too deep, or of a kind that is not supported.
        """
        key = (salt, schema)
        compiled = self._compiled.get(key)
        if compiled is None:
            check_schema(schema)
            compiled = _guarded(lambda: self._compile(schema))
            self._compiled[key] = compiled
            while len(self._compiled) > GRAMMARS_KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        grammar = Grammar(_guarded(compiled.deep_copy), self._tokenizer.vocabulary_size)
        for token_id in token_ids:
            grammar.advance(token_id)
        return grammar

    def _compile(self, schema: str) -> llguidance.LLMatcher:
        self.prepare()
        assert self._vocabulary is not None
        source = llguidance.LLMatcher.grammar_from_json_schema(
            schema, overrides={"whitespace_pattern": WHITE_SPACE}
        )
        matcher = llguidance.LLMatcher(self._vocabulary, source, log_level=0, limits=_limits())
        if matcher.is_error():
            raise _refused("this schema cannot be followed", matcher.get_error())
        return matcher


def check_schema(schema: str) -> None:
    """Hold a schema's text against the limits, before a compiler sees it.

    Raises:
      RequestError: too large, not JSON, not an object, or nested too deep.
    """
    size = len(schema.encode("utf-8", "replace"))
    if size > SCHEMA_BYTES_MAX:
        raise _refused(f"the schema has {size} bytes; at most {SCHEMA_BYTES_MAX} are taken")
    try:
        value = json.loads(schema)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise _refused("the schema is not JSON") from error
    if not isinstance(value, dict):
        raise _refused(f"the schema must be an object, is {type(value).__name__}")
    layer: list[_Nested] = [value]
    for _ in range(DEPTH_MAX):
        layer = [child for parent in layer for child in _children(parent)]
        if not layer:
            return
    raise _too_deep()


def _children(value: _Nested) -> list[_Nested]:
    """The objects and arrays right inside of one."""
    inside = value.values() if isinstance(value, dict) else value
    return [child for child in inside if isinstance(child, dict | list)]


def _guarded(call: Callable[[], _Result]) -> _Result:
    """Call into the library.

    A panic of Rust code arrives as a `BaseException` of no importable class, past every
    ``except Exception``: unnamed, it would end the worker and all of its requests.
    """
    try:
        return call()
    except (RequestError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise _refused("this schema cannot be followed", type(error).__name__) from error


def _refused(problem: str, reason: str = "") -> RequestError:
    first_line = reason.strip().partition("\n")[0][:REASON_CHARACTERS_MAX]
    message = f"response_format: {problem}" + (f": {first_line}" if first_line else "")
    return RequestError(ErrorCode.INVALID_REQUEST, message, param="response_format")


def _too_deep() -> RequestError:
    return _refused(f"the schema is nested deeper than {DEPTH_MAX}")


class _Vocabulary(llguidance.TokenizerWrapper):
    """What llguidance wants to see of a tokenizer; it reads these names."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: GrammarTokenizer) -> None:  # the base's would take another
        assert tokenizer.end_ids, "a grammar needs a token that ends the answer"
        self.end_ids = sorted(tokenizer.end_ids)
        self.eos_token_id = self.end_ids[0]
        self.bos_token_id = None
        special_ids = {*tokenizer.special_ids, *tokenizer.end_ids}
        self.special_token_ids = sorted(special_ids)
        # 0xff marks a special token to llguidance; it stands in no UTF-8 text.
        self.tokens = [
            b"\xff<%d>" % token_id if token_id in special_ids else tokenizer.piece(token_id)
            for token_id in range(tokenizer.vocabulary_size)
        ]
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, special=False, bos=False)
