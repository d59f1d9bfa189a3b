"""A model's chat template: from messages to the text of a prompt.

Rule 1: the template comes with the model and is not trusted: it runs in `chat_sandbox`.
Rule 2: what it is given is what Hugging Face's `apply_chat_template` gives, without tools.
Rule 3: no error holds a message's content. What a template says on its own is told only where
        it stands word for word in the template.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError

from rbee.ask import Message
from rbee.engine.chat_filters import OverLimitError
from rbee.engine.chat_sandbox import Meter, Sandbox, with_checks
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError

# Twice the longest known. The time to compile grows with it (1.6 s for the densest), and so does
# what a template can do between two checks of the sandbox.
SOURCE_CHARACTERS_MAX: Final = 64 * 1024

# More than the longest context has in text.
PROMPT_BYTES_MAX: Final = 4 * 1024 * 1024

_NO_TEMPLATE_IS_LOADED: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)

# What compiling a hostile source raises besides jinja2's own: too deep, too long a number.
_COMPILE_ERRORS: Final = (RecursionError, SyntaxError, ValueError, OverflowError, MemoryError)

# What Python's operators and methods raise when a template uses them on the wrong values. A number
# beyond all floats, such as 1e400, is a name in jinja2's code: `inf`, which nobody has defined.
_RENDER_ERRORS: Final = (
    TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, NameError,
    RecursionError, TypeError, ValueError,
)  # fmt: skip


class _Refusal(TemplateError):
    """The template called ``raise_exception``."""


class ChatTemplate:
    """A compiled template. One thread uses it.

    Args:
      source: jinja2, from the model's files.
      now: what ``strftime_now`` tells.
    Raises:
      EngineError: the template cannot be compiled.
    """

    def __init__(
        self,
        source: str,
        bos_token: str,
        eos_token: str,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        if len(source) > SOURCE_CHARACTERS_MAX:
            raise _broken(
                f"it has {len(source)} characters, at most {SOURCE_CHARACTERS_MAX} may be"
            )
        self._source = source
        self._meter = Meter()
        sandbox = Sandbox(self._meter, now)
        sandbox.globals.update(
            raise_exception=_raise_exception, bos_token=bos_token, eos_token=eos_token
        )
        self._template = _compile(sandbox, source)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt for the assistant's next message.

        Raises:
          RequestError: the template refuses these messages, or fails on them.
        """
        context: dict[str, Any] = {
            "messages": [{"role": each.role, "content": each.content} for each in messages],
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
        }
        self._meter.start()
        try:
            return self._render_within_limits(context)
        except _Refusal as refusal:
            reason = str(refusal)
            told = f": {reason}" if reason and reason in self._source else ""
            raise _failed(f"refuses these messages{told}") from refusal
        except OverLimitError as error:
            raise _failed(f"takes too much to render these messages: {error}") from error
        except SecurityError as error:
            raise _failed("does what a template may not do") from error
        except _RENDER_ERRORS as error:
            raise _failed(f"fails on these messages ({type(error).__name__})") from error
        finally:
            self._meter.stop()

    def _render_within_limits(self, context: dict[str, Any]) -> str:
        parts: list[str] = []
        size = 0
        for part in self._template.generate(context):
            size += len(part.encode())
            if size > PROMPT_BYTES_MAX:
                raise OverLimitError(f"more than {PROMPT_BYTES_MAX} bytes come out")
            parts.append(part)
        return "".join(parts)


def _compile(sandbox: Sandbox, source: str) -> Template:
    try:
        tree = sandbox.parse(source)
        if next(tree.find_all(_NO_TEMPLATE_IS_LOADED), None) is not None:
            raise _broken("it includes, imports or extends another template; there is none")
        if any(loop.recursive for loop in tree.find_all(nodes.For)):
            raise _broken("it has a recursive loop, which is not supported; a macro may recurse")
        code = sandbox.compile(with_checks(tree))
    except TemplateSyntaxError as error:
        raise _broken(f"line {error.lineno}: {error.message}") from error
    except _COMPILE_ERRORS as error:
        raise _broken(type(error).__name__) from error
    return Template.from_code(sandbox, code, sandbox.make_globals(None))


def _raise_exception(message: object) -> None:
    raise _Refusal(str(message))


def _broken(problem: str) -> EngineError:
    return EngineError(f"the model's chat template cannot be used: {problem}", ExitCode.DATA)


def _failed(problem: str) -> RequestError:
    message = f"the model's chat template {problem}"
    return RequestError(ErrorCode.INVALID_REQUEST, message, param="messages")
