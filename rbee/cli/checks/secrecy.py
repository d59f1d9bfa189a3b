"""The secrets' files and the certificate, as a server would find them."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.cli.checks.finding import Finding
from rbee.errors import ConfigError

if TYPE_CHECKING:
    from rbee.config import Config


def check_keys(config: "Config") -> Finding:
    """Whether the store of the keys can be read, and whether a key in it is good."""
    from rbee.cli.key_store import count_keys
    from rbee.errors import StoreCorruptError, StoreError

    try:
        count, good = count_keys(config)
    except StoreCorruptError as error:
        mend = "put a backup in its place; else the next start sets it aside, and nobody gets in"
        return Finding("keys", "fail", str(error), mend)
    except StoreError as error:
        return Finding("keys", "fail", str(error), "see docs/keys.md; it must be ours, and 0600")
    if good:
        return Finding("keys", "ok", f"{good} of {count} are good")
    if config.jwt.issuer:
        return Finding("keys", "ok", "none is good: JWTs alone are taken")
    if count or config.access.required:
        return Finding("keys", "warn", "none is good: nobody gets in", "rbee init")
    return Finding("keys", "ok", "there are none: whoever is on this machine may do everything")


def check_secrets(config: "Config") -> Finding:
    """Whether the secrets that are named can be used."""
    from rbee.secret_files import open_secret_file, read_secret_file, secret_path

    named = [name for name in (config.audit.secret_file, config.tls.key_file) if name]
    try:
        if config.audit.secret_file:
            read_secret_file(secret_path(config.audit.secret_file))
        if config.tls.key_file:
            with open_secret_file(secret_path(config.tls.key_file)):
                pass
    except ConfigError as error:
        return Finding(
            "secrets", "fail", str(error), "see docs/secrets.md: how such a file must be"
        )
    return Finding("secrets", "ok", ", ".join(named) if named else "none is configured")


def check_certificate(config: "Config") -> Finding:
    """Whether clients will take the certificate, and for how long."""
    from rbee.supervisor.http_server.tls import EXPIRES_SOON_S, load_certificate

    if not config.tls.is_on:
        return Finding("certificate", "ok", "none is configured: plain HTTP")
    try:
        found = load_certificate(config.tls)
    except ConfigError as error:
        return Finding("certificate", "fail", str(error), "see docs/tls.md")
    name = Path(config.tls.certificate_file).name
    renew = "get a new one, put it in its place, and send SIGHUP: docs/tls.md"
    if found.expires_unix_s is None:
        return Finding("certificate", "fail", f"clients refuse {name}: {found.problem}", renew)
    left_s = found.expires_unix_s - time.time()
    told = f"{name} holds for {left_s // 86_400:.0f} more days"
    if left_s < EXPIRES_SOON_S:
        return Finding("certificate", "warn", told, renew)
    return Finding("certificate", "ok", told)
