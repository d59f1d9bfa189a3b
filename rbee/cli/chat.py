"""``rbee chat``: one answer, or a conversation in the terminal."""

import sys
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from rbee.cli.address import Address, server_address
from rbee.cli.endings import UnreachableError, UsageError
from rbee.cli.options import HERE, At
from rbee.cli.terminal import is_terminal, put, show

if TYPE_CHECKING:
    from rbee.cli.conversation import Conversation

PROMPT_BYTES_MAX: Final = 16 * 1024 * 1024  # of stdin; the server's own limit is far lower


def chat(
    *prompt: str,
    at: At = HERE,
    model: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> int:
    """Ask a model; the answer comes as it is made.

    With a PROMPT, or with one piped in, there is one answer. Without, a
    conversation begins: Ctrl-C stops an answer, Ctrl-D leaves, /help tells the
    rest. On a terminal, control characters in an answer are shown in words; a
    pipe gets the answer as it is.

    Args:
      prompt: What to ask. With none, stdin is read if it is no terminal.
      model: Which of the server's models; else its first.
      system: What the model is told before all else.
      temperature: 0 always takes the likeliest token, up to 2; else the server's default.
      max_tokens: Where the answer ends at the latest.
    """
    from rbee.cli.conversation import Conversation

    address = server_address(at)
    if temperature is not None and not 0 <= temperature <= 2:
        raise UsageError(f"--temperature must be from 0 to 2, got {temperature}")
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"--max-tokens must be 1 or more, got {max_tokens}")
    asked = " ".join(prompt)
    if not asked and not is_terminal(sys.stdin):
        asked = _piped_prompt()
    if not asked and not is_terminal(sys.stdout):
        raise UsageError('nothing to ask; try: rbee chat "What is 2 plus 3?"')
    conversation = Conversation(
        model=model or _first_model(address),
        system=system,
        temperature=temperature,
        tokens_max=max_tokens,
    )
    if not asked:
        from rbee.cli.conversation import converse

        return converse(address, conversation)
    _answer_once(address, conversation, asked)
    return 0


def _answer_once(address: Address, conversation: "Conversation", asked: str) -> None:
    from rbee.cli.server import Server

    last = ""
    try:
        with Server(address) as server:
            for piece in server.stream_chat(conversation.body(asked)):
                show(piece)
                last = piece or last
    finally:
        # Also after an error in the middle: its message must not hang on the answer's line.
        if last and not last.endswith("\n"):
            put("")


def _first_model(address: Address) -> str:
    from rbee.cli.server import Server

    with Server(address) as server:
        names = server.models()
    if not names:
        raise UnreachableError(f"the server at {address.url} has no model to talk to")
    return names[0]


def _piped_prompt() -> str:
    if sys.stdin is None:  # closed by whoever started us
        return ""
    raw = sys.stdin.buffer.read(PROMPT_BYTES_MAX + 1)
    if len(raw) > PROMPT_BYTES_MAX:
        raise UsageError(f"stdin holds more than {PROMPT_BYTES_MAX} bytes")
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin is not UTF-8 at byte {error.start}") from error
    if not text:
        raise UsageError("nothing to ask: stdin is empty")
    return text
