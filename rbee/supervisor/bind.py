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


def check_bind(bind: Bind) -> None:
    """Refuse what is not loopback: this version has no keys, so anybody could come in.

    Raises:
      ConfigError: says what to do instead.
    """
    if bind.host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(bind.host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(
            f"server.bind {bind.host} is open to other machines, and no API key is configured:"
            " whoever reaches it could use it. Bind to 127.0.0.1, and let a proxy that checks"
            " who comes, or an SSH tunnel, stand in front"
        )
