"""``rbee serve``: what the command line changes of the configuration, and off it goes."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from rbee.supervisor.start import Start

LogFormat = Literal["auto", "json", "text"]


def serve(  # noqa: PLR0913  # its options
    *,
    config: Path | None = None,
    model: Annotated[list[str] | None, Parameter(name=["--model", "-m"])] = None,
    bind: str | None = None,
    run_dir: str | None = None,
    log_format: LogFormat | None = None,
    start: Annotated[Start | None, Parameter(parse=False)] = None,
) -> int:
    """Serve models over HTTP, until SIGTERM or Ctrl-C.

    What is given here goes before the configuration file, and that before the
    defaults. Without --config, ./rbee.toml is taken if it is there.

    Args:
      config: The configuration file.
      model: What to serve instead of the configured models: bee-tiny, synthetic,
        or file:PATH of a .gguf file or of a folder in HF or EXL2 form. May be
        given more than once.
      bind: Where to listen, as HOST:PORT.
      run_dir: The folder for sockets, made with mode 0700.
      log_format: How log lines look; auto is text on a terminal, else JSON.
      start: What the process has begun with.
    """
    from rbee.cli.effective_config import apply_overrides, configuration

    effective = apply_overrides(
        configuration(config), models=model or (), bind=bind, run_dir=run_dir, log_format=log_format
    )
    from rbee.supervisor.main import serve as run_supervisor

    assert start is not None, "a server is a process of its own, as it holds signals back"
    return run_supervisor(effective, start)
