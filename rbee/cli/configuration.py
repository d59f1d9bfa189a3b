"""``rbee config``: whether a configuration is good, and what it comes to with the defaults."""

import json as json_text
from pathlib import Path
from typing import Any

import msgspec

from rbee.cli.address import CONFIG_FILE
from rbee.cli.serve import configuration
from rbee.cli.terminal import put
from rbee.config import Config, load_config, model_name
from rbee.errors import ConfigError
from rbee.supervisor.bind import check_bind, parse_bind


def check(file: Path = CONFIG_FILE, /) -> int:
    """Say whether a configuration file is valid. Exit code 78 if it is not.

    Args:
      file: The configuration file.
    """
    config = load_config(file)
    try:
        check_bind(parse_bind(config.server.bind))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    names = ", ".join(model_name(model) for model in config.model) or "no model"
    put(f"{file}: valid; serves {names} at {config.server.bind}")
    return 0


def show(file: Path | None = None, /, *, json: bool = False) -> int:
    """Print the whole configuration that holds, defaults included, as TOML.

    Args:
      file: The configuration file; else ./rbee.toml, if it is there.
      json: Print JSON instead.
    """
    config = configuration(file)
    tree = msgspec.to_builtins(config)
    put(json_text.dumps(tree, indent=2) if json else as_toml(config))
    return 0


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
    if value is None:
        return f"# {key} is not set"
    # JSON's strings, numbers, Booleans and lists of these are TOML's too, but for DEL.
    return f"{key} = {json_text.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
