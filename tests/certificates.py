"""Certificates for tests, made by the openssl command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl command is not installed"
)


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate for localhost, and its key."""

    certificate: Path
    key: Path

    def toml(self) -> str:
        return f'[tls]\ncertificate_file = "{self.certificate}"\nkey_file = "{self.key}"\n'

    def replace_with(self, other: "Pair") -> None:
        """As a renewal does it: the files are changed, their names are not."""
        other.key.replace(self.key)
        other.certificate.replace(self.certificate)


def make_pair(folder: Path, *more: str, days: int = 30, passphrase: str = "") -> Pair:
    """Make one. ``more`` goes to ``openssl req``."""
    folder.mkdir(exist_ok=True)
    pair = Pair(folder / "certificate.pem", folder / "key.pem")
    protection = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            *protection, "-days", str(days), "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *more,
            "-keyout", str(pair.key), "-out", str(pair.certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    pair.key.chmod(0o600)
    return pair
