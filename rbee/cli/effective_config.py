"""The configuration that holds: the command line before the file, the file before the defaults."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from rbee.cli.address import CONFIG_FILE
from rbee.config import Config, ModelConfig, load_config
from rbee.errors import ConfigError
from rbee.supervisor.bind import parse_bind


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
    log_format: Literal["auto", "json", "text"] | None = None,
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


def as_toml(config: Config) -> str:
    """The configuration as the text of an ``rbee.toml`` that gives it again."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    models = tree.pop("model")
    blocks = [_section(f"[{name}]", section) for name, section in tree.items()]
    for model in models:
        synthetic = model.pop("synthetic")
        blocks.append(_section("[[model]]", model))
        blocks.append(_section("[model.synthetic]", synthetic))
    if not models:
        blocks.insert(0, "model = []")
    return "\n\n".join(blocks)


def _section(title: str, section: dict[str, Any]) -> str:
    return "\n".join([title, *(_entry(key, value) for key, value in section.items())])


def _entry(key: str, value: Any) -> str:  # noqa: ANN401 (what TOML can hold)
    return f"# {key} is not set" if value is None else f"{key} = {_value(value)}"


def _value(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        inner = ", ".join(f"{_value(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    # JSON's strings, numbers, Booleans and lists of these are TOML's too, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
