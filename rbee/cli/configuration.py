"""``rbee config``: whether a configuration is good, and what it comes to with the defaults."""

import json as json_text
from pathlib import Path

from rbee.cli.address import CONFIG_FILE
from rbee.cli.terminal import put


def check(file: Path = CONFIG_FILE, /) -> int:
    """Say whether a configuration file is valid. Exit code 78 if it is not.

    Args:
      file: The configuration file.
    """
    from rbee.cli.key_store import check_address
    from rbee.config import load_config, model_name
    from rbee.errors import ConfigError
    from rbee.supervisor.worker_user import find_user

    config = load_config(file)
    try:
        check_address(config)
        find_user(config.worker.user)
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
    import msgspec

    from rbee.cli.effective_config import as_toml, configuration

    config = configuration(file)
    tree = msgspec.to_builtins(config)
    put(json_text.dumps(tree, indent=2) if json else as_toml(config))
    return 0
