"""A conversation in the terminal: what was said, and the loop that goes on saying it.

Rule 1: Ctrl-C ends the running answer, never the program; Ctrl-D and /quit leave.
Rule 2: what was typed is kept in memory only, for the arrow keys.
"""

import contextlib
import importlib
from typing import Final

import msgspec

from rbee.cli.address import Address
from rbee.cli.endings import RefusedError, UnreachableError
from rbee.cli.server import Server
from rbee.cli.terminal import printable_line, put, show
from rbee.ids import is_model_name

_HELP: Final = """\
/system TEXT   tell the model something before all else; /system alone forgets it
/model NAME    talk to another model; /model alone lists them
/clear         forget the conversation
/quit          leave, as does Ctrl-D
Ctrl-C         stop the answer
"""


class Turn(msgspec.Struct, frozen=True):
    role: str
    content: str


class Conversation:
    """What was said so far. Changed by `converse` alone."""

    def __init__(
        self, *, model: str, system: str | None, temperature: float | None, tokens_max: int | None
    ) -> None:
        self.model = model
        self.system = system
        self.turns: list[Turn] = []
        self._temperature = temperature
        self._tokens_max = tokens_max

    def body(self, asked: str) -> dict[str, object]:
        """The request that asks this next, by the names of OpenAI's API."""
        system = [Turn("system", self.system)] if self.system else []
        turns = [*system, *self.turns, Turn("user", asked)]
        optional = {"temperature": self._temperature, "max_tokens": self._tokens_max}
        return {
            "model": self.model,
            "messages": msgspec.to_builtins(turns),
            **{key: value for key, value in optional.items() if value is not None},
        }

    def add(self, asked: str, answer: str) -> None:
        """Remember a turn. One without any answer is forgotten: the model would see two
        questions in a row, which most chat templates refuse."""
        if answer:
            self.turns += [Turn("user", asked), Turn("assistant", answer)]


def converse(address: Address, conversation: Conversation) -> int:
    """Read and answer until the operator leaves.

    Returns:
      The exit code.
    """
    with contextlib.suppress(ImportError):  # an interpreter without it lacks arrow keys only
        importlib.import_module("readline")  # `input` takes it from there
    model = printable_line(conversation.model)
    put(f"{model} at {address.url}. /help shows what else you can type.")
    while True:
        try:
            typed = input("> ").strip()
        except KeyboardInterrupt:
            put("\n(Ctrl-D or /quit leaves)")
            continue
        except EOFError:
            put("")
            return 0
        except UnicodeDecodeError:
            put("what you typed is not UTF-8")
            continue
        if typed in {"/quit", "/exit"}:
            return 0
        if not typed:
            continue
        try:
            _act(address, conversation, typed)
        except KeyboardInterrupt:
            put("\n(stopped)")
        except (RefusedError, UnreachableError) as error:
            put(f"\n{printable_line(str(error))}")
            if isinstance(error, RefusedError) and error.code == "context_length_exceeded":
                put("(/clear forgets the conversation so far)")


def _act(address: Address, conversation: Conversation, typed: str) -> None:
    command, _, rest = typed.partition(" ")
    match command:
        case "/help":
            put(_HELP, end="")
        case "/clear":
            conversation.turns.clear()
            put("(forgotten)")
        case "/system":
            conversation.system = rest.strip() or None
            put("(from the next answer on)")
        case "/model":
            _choose_model(address, conversation, rest.strip())
        case _ if command.startswith("/"):
            put(f"no command {printable_line(command)}; /help lists them")
        case _:
            _answer(address, conversation, typed)


def _answer(address: Address, conversation: Conversation, asked: str) -> None:
    said: list[str] = []
    try:
        # A connection of its own for each answer: an interrupted one cannot be used again.
        with Server(address) as server:
            for piece in server.stream_chat(conversation.body(asked)):
                # Noted before it is shown: Ctrl-C may come once the operator has read it.
                said.append(piece)
                show(piece)
    finally:
        conversation.add(asked, "".join(said))
    put("")


def _choose_model(address: Address, conversation: Conversation, name: str) -> None:
    with Server(address) as server:
        names = server.models()
    if is_model_name(name) and name in names:
        conversation.model = name
    elif name:
        put(f"the server has no model {printable_line(name)}")
    for each in names:
        put(f"{'*' if each == conversation.model else ' '} {printable_line(each)}")
