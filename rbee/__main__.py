"""Where `rbee` begins and ends: errors become one line on stderr and an exit code.

Rule: a user's mistake shows no traceback; a bug in rbee shows all of it, and ends with 70.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from rbee.supervisor.start import Start, begin

# `rbee.cli.endings.INTERRUPTED` and `ExitCode.OS_ERROR`, which may not be imported yet.
_INTERRUPTED: Final = 130
_OS_ERROR: Final = 71


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
      arguments: None: those of this process, which is then all the command's.

    Returns:
      The exit code.
    """
    is_process = arguments is None
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        _fill_standard_descriptors()
        if is_process and next((word for word in arguments if word != "--"), "") == "serve":
            with begin() as start:  # already now: what it imports takes half a second
                return _run(arguments, start)
        return _run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:  # of a call that nobody else speaks for, such as an import
        with contextlib.suppress(OSError):  # that stderr takes nothing is refused, too
            os.write(2, f"rbee: the system refuses: {error}\n".encode("utf-8", "replace"))
        return _OS_ERROR


def _fill_standard_descriptors() -> None:
    """Where one was closed, no file of ours may get its number: others write by it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free


def _run(arguments: Sequence[str], start: Start | None = None) -> int:
    # Imported here, where Ctrl-C is already quiet.
    from rbee.cli.app import run_command
    from rbee.cli.endings import ReaderGoneError, exit_code_of
    from rbee.cli.terminal import accept_any_text, put, say
    from rbee.errors import ExitCode, RbeeError

    accept_any_text()
    try:
        code = run_command(arguments, start)
        put("", end="")  # what still waits in the buffer may fail too
    except ReaderGoneError as error:
        return exit_code_of(error)
    except RbeeError as error:
        with contextlib.suppress(ReaderGoneError):  # the code says it, too
            say(f"rbee: {error}")
        return exit_code_of(error)
    except OSError:  # `main` tells it
        raise
    except Exception:  # noqa: BLE001 (shown whole, and it ends the process)
        import traceback

        with contextlib.suppress(ReaderGoneError):
            say(
                f"{traceback.format_exc()}"
                "rbee: this is a bug in rbee; please report it with the lines above"
            )
        return ExitCode.SOFTWARE
    return code


if __name__ == "__main__":
    sys.exit(main())
