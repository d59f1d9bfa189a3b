"""``rbee serve``: what the command line changes of the configuration, and off it goes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from rbee.cli.address import CONFIG_FILE
from rbee.config import Config, ModelConfig, load_config
from rbee.errors import ConfigError
from rbee.supervisor.bind import parse_bind

LogFormat = Literal["auto", "json", "text"]


def serve(
    *,
    config: Path | None = None,
    model: Annotated[list[str] | None, Parameter(name=["--model", "-m"])] = None,
    bind: str | None = None,
    run_dir: str | None = None,
    log_format: LogFormat | None = None,
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
    """
    effective = apply_overrides(
        configuration(config), models=model or (), bind=bind, run_dir=run_dir, log_format=log_format
    )
    from rbee.supervisor.main import serve as run_supervisor

    return run_supervisor(effective)


def configuration(path: Path | None) -> Config:
    """The named file; else ``./rbee.toml`` if there is one; else the defaults.

    Raises:
      ConfigError: the file cannot be read or used.
    """
    if path is not None:
        return load_config(path)
    return load_config(CONFIG_FILE) if CONFIG_FILE.exists() else Config()


def apply_overrides(
    config: Config,
    *,
    models: Sequence[str] = (),
    bind: str | None = None,
    run_dir: str | None = None,
    log_format: LogFormat | None = None,
) -> Config:
    """The configuration with what the command line says in its place.

    Raises:
      ConfigError: names the option, and what it should be.
    """
    server, log = config.server, config.log
    if bind is not None:
        server = msgspec.structs.replace(server, bind=_checked_bind(bind))
    if run_dir is not None:
        if not run_dir or not run_dir.isprintable():
            raise ConfigError("--run-dir must name a folder, without control characters")
        server = msgspec.structs.replace(server, run_dir=run_dir)
    if log_format is not None:
        log = msgspec.structs.replace(log, format=log_format)
    try:
        chosen = tuple(_model(reference) for reference in models) or config.model
        return msgspec.structs.replace(config, server=server, log=log, model=chosen)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from error


def _checked_bind(bind: str) -> str:
    try:
        parse_bind(bind)
    except ConfigError as error:
        raise ConfigError(f"--bind: {error}") from error
    return bind


def _model(reference: str) -> ModelConfig:
    if not reference or not reference.isprintable():
        raise ValueError("a reference must not be empty or hold control characters")
    return ModelConfig(ref=reference)
