"""Where the server may listen. Pure."""

import ipaddress
from dataclasses import dataclass

from rbee.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Bind:
    """A host and a port to listen on."""

    host: str
    port: int
    is_tls: bool = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


def parse_bind(text: str) -> Bind:
    """Read ``HOST:PORT``; an IPv6 host stands in brackets.

    Raises:
      ConfigError: it has another form.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError("server.bind: an IPv6 host stands in brackets, as in [::1]:7233")
    if not colon or not host or not port.isascii() or not _is_port(port):
        raise ConfigError("server.bind must be HOST:PORT, as in 127.0.0.1:7233")
    return Bind(host, int(port))


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5 and int(text) <= 65_535


def check_bind(bind: Bind, *, has_credentials: bool, has_tls: bool, allow_plaintext: bool) -> None:
    """Refuse to listen where other machines come, without asking who they are or in plain sight.

    Args:
      has_credentials: there is a key, or another credential, with which somebody can come in.
      has_tls: the server speaks TLS itself.
      allow_plaintext: the operator has said that it need not.
    Raises:
      ConfigError: says how to mend it.
    """
    if is_loopback(bind.host):
        return
    where = f"server.bind {bind.host} is open to other machines"
    if not has_credentials:
        raise ConfigError(
            f"{where}, and no API key is there: whoever reaches it could use it. Make one with"
            " `rbee keys create --role user`, or bind to 127.0.0.1"
        )
    if not has_tls and not allow_plaintext:
        raise ConfigError(
            f"{where}, and there is no TLS: keys and prompts could be read on the way. Give [tls]"
            " a certificate_file and a key_file; or set server.allow_plaintext = true where the"
            " network, or a proxy in front, keeps them secret; or bind to 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
