"""All commands, by name, and the examples that their help shows."""

import functools
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from rbee import __version__
from rbee.cli import (
    audit,
    chaos,
    chat,
    configuration,
    crashes,
    doctor,
    jwt,
    keys,
    openapi,
    serve,
    status,
    version,
    workers,
)
from rbee.cli.endings import ReaderGoneError, UsageError
from rbee.cli.terminal import is_terminal, printable
from rbee.supervisor.start import Start

_EXAMPLES = """\
Examples:
  rbee serve                       serve the model that comes with rbee
  rbee chat                        talk to it, from another terminal
  rbee chat "What is 2 plus 3?"    one answer
  rbee status --watch              see what the workers do
  rbee doctor                      what is wrong here, and how to mend it

`rbee COMMAND --help` tells more of each command.
"""

_SERVE_EXAMPLES = """\
Examples:
  rbee serve
  rbee serve --model file:models/qwen3-4b-q4_k_m.gguf
  rbee serve --config /etc/rbee/rbee.toml --bind 127.0.0.1:8000 --log-format json
"""

_CHAT_EXAMPLES = """\
Examples:
  rbee chat
  rbee chat "What is the opposite of hot?"
  rbee chat --temperature 0 --max-tokens 20 "Spell bee."
  rbee chat < question.txt > answer.txt
"""

_STATUS_EXAMPLES = """\
Exit codes: 0 ready, 1 a server answers but is not ready, 69 no server answers.

Examples:
  rbee status
  rbee status --watch
  rbee status --json | jq '.workers[].pid'
"""

_WORKERS_EXAMPLES = """\
Examples:
  rbee workers list
  rbee workers restart bee-tiny-0
  rbee workers stop bee-tiny-0
  rbee workers reset
"""

_CRASHES_EXAMPLES = """\
Examples:
  rbee crashes list
  rbee crashes show
  rbee crashes show --json | jq '.stacks[]'
"""

_AUDIT_EXAMPLES = """\
Exit codes of verify: 0 as it was written, 1 not so, 74 it cannot be read.

Examples:
  rbee audit verify
  rbee audit verify --secret-file /etc/rbee/audit-secret
  rbee audit tail --follow
  rbee audit export --since 2026-11-03T12:00:00Z --event 'key.*'
"""

_KEYS_EXAMPLES = """\
Examples:
  rbee keys create --role user --name "chat page" --model bee-tiny --expires 90d
  rbee keys create --role operator --key-file operator.key
  rbee keys list
  rbee keys rotate V4gTy2Zq --grace 24h
  rbee keys revoke V4gTy2Zq --reason "left the team"
"""

_JWT_EXAMPLES = """\
Examples:
  rbee jwt revoke 4f1c6d0e-57f5-4d2c-9a53-0b8f4c1d7e11
  rbee jwt list
"""

_INIT_EXAMPLES = """\
Examples:
  rbee init
  rbee init --key-file ~/rbee-admin.key
"""

_CONFIG_EXAMPLES = """\
Examples:
  rbee config check
  rbee config check /etc/rbee/rbee.toml
  rbee config show
"""

_DOCTOR_EXAMPLES = """\
Exit codes: 0 nothing failed, 1 something did; warnings do not count.

Examples:
  rbee doctor
  rbee doctor --config /etc/rbee/rbee.toml
  rbee doctor --prepare
"""


_CHAOS_EXAMPLES = """\
Exit codes: 0 all passed, 1 something failed.

Examples:
  rbee chaos --list
  rbee chaos --quick
  rbee chaos --scenario worker-stopped --seeds 5
  rbee chaos --seeds 5 --json > chaos.jsonl
"""


def build_app(start: Start | None = None) -> App:
    """The whole command line."""
    app = App(
        name="rbee",
        help="One supervisor for the LLM workers of one GPU box.",
        help_epilogue=_EXAMPLES,
        help_format="plaintext",
        # Frames are for people; a pipe gets text that grep can use.
        help_formatter="default" if is_terminal(sys.stdout) else "plain",
        version=f"rbee {__version__}",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    run_server = functools.partial(serve.serve, start=start)
    app.command(run_server, name="serve", help_epilogue=_SERVE_EXAMPLES)
    app.command(chat.chat, help_epilogue=_CHAT_EXAMPLES)
    app.command(status.status, help_epilogue=_STATUS_EXAMPLES)
    app.command(doctor.doctor, help_epilogue=_DOCTOR_EXAMPLES)
    app.command(chaos.chaos, help_epilogue=_CHAOS_EXAMPLES)
    app.command(openapi.openapi, help_epilogue="")
    app.command(version.version, help_epilogue="")
    group = App(
        name="workers",
        help="List, restart, stop or reset workers.",
        help_epilogue=_WORKERS_EXAMPLES,
    )
    group.command(workers.list_workers, name="list")
    group.command(workers.restart)
    group.command(workers.stop)
    group.command(workers.reset)
    app.command(group)
    group = App(name="crashes", help="See why workers failed.", help_epilogue=_CRASHES_EXAMPLES)
    group.command(crashes.list_crashes, name="list")
    group.command(crashes.show)
    app.command(group)
    app.command(keys.init, help_epilogue=_INIT_EXAMPLES)
    group = App(
        name="keys", help="Make, list, rotate or revoke API keys.", help_epilogue=_KEYS_EXAMPLES
    )
    group.command(keys.create)
    group.command(keys.list_keys, name="list")
    group.command(keys.revoke)
    group.command(keys.rotate)
    app.command(group)
    group = App(name="jwt", help="Revoke JWTs.", help_epilogue=_JWT_EXAMPLES)
    group.command(jwt.revoke)
    group.command(jwt.list_revoked, name="list")
    app.command(group)
    group = App(name="audit", help="Verify or read the audit log.", help_epilogue=_AUDIT_EXAMPLES)
    group.command(audit.verify)
    group.command(audit.tail)
    group.command(audit.export)
    app.command(group)
    group = App(
        name="config", help="Check or show the configuration.", help_epilogue=_CONFIG_EXAMPLES
    )
    group.command(configuration.check)
    group.command(configuration.show)
    app.command(group)
    return app


def run_command(arguments: Sequence[str], start: Start | None = None) -> int:
    """Do what the command line says.

    Args:
      start: of a server that is to be; see `rbee.supervisor.start`.

    Returns:
      The exit code.

    Raises:
      RbeeError: see `rbee.cli.endings`.
    """
    try:
        app = build_app(start)
        code = app(list(arguments), exit_on_error=False, print_error=False, verbose=False)
    except CycloptsError as error:
        command = " ".join(["rbee", *(error.command_chain or ())])
        raise UsageError(f"{printable(str(error))}\nSee `{command} --help`.") from error
    except SystemExit as ending:
        # rich leaves in this way when the reader of a help text has gone; nothing else does.
        raise ReaderGoneError("stdout is closed") from ending
    assert code is None or isinstance(code, int), code  # None: help or version was printed
    return code or 0
