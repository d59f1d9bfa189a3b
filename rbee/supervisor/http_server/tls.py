"""TLS: the certificate that clients are shown, and the sockets that speak under it.

Rule 1: a certificate is replaced as a whole, for new connections; open ones keep theirs.
Rule 2: what cannot be used never replaces what can.
Rule 3: a TLS socket stands in for a plain one: it reads and writes when the kernel's socket is
        readable and writable, and raises BlockingIOError when it is not. The handshake is part
        of the first reads, so whoever limits the wait for a head limits it too.
"""

import contextlib
import functools
import hashlib
import os
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Never

import trio

from rbee.config import TlsConfig
from rbee.errors import ConfigError
from rbee.logs import Log
from rbee.secret_files import open_secret_file, secret_path

CERTIFICATE_BYTES_MAX: Final = 1024 * 1024

# From here on each look at the certificate warns.
EXPIRES_SOON_S: Final = 14 * 86_400
LOOK_EVERY_S: Final = 86_400.0

_ALPN: Final = "http/1.1"
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_LINGER: Final = struct.Struct("ii")
_HANDSHAKE_ROUNDS: Final = 4  # TLS 1.3 takes two, TLS 1.2 three


class TlsSocket(ssl.SSLSocket):
    """A client's socket. Made by `Tls.wrap`.

    One read takes one TLS record, and leaves all others to the kernel: so none is ever here
    while the kernel's socket is not readable.
    """

    note_failure: Callable[[str], None]

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(size, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            # It asks for an answer of the TLS layer itself, and reads none. To wait here for a
            # socket that is readable already would never end.
            raise ConnectionResetError("the client does not read") from None
        except ssl.SSLError as error:
            self.note_failure(error.reason or type(error).__name__)
            raise

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401  # as in the base class
        """What is refused with BlockingIOError must come again first, alone or with more."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        self._say_that_all_was_said()
        super().shutdown(how)

    def close(self) -> None:
        """Close it. A client that is to see that something is missing (SO_LINGER) hears no end."""
        if self.fileno() >= 0 and not self._is_to_be_reset():
            self._say_that_all_was_said()
        super().close()

    def _say_that_all_was_said(self) -> None:
        """Under TLS, where nobody else can say it, as far as the kernel takes it now."""
        with contextlib.suppress(OSError, ValueError):
            self.unwrap()

    def _is_to_be_reset(self) -> bool:
        linger = self.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
        return bool(_LINGER.unpack(linger)[0])


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, ready for use."""

    context: ssl.SSLContext
    chain: tuple[bytes, ...]  # in DER form, the server's own first
    fingerprint: str  # SHA-256 of the server's own, as browsers show it
    expires_unix_s: int | None  # None: a client would refuse it, see `problem`
    problem: str  # why a client would refuse it, whatever name it looks for; "": it would not


class Tls:
    """The certificate that holds. Its one writer is `prepare`'s outcome.

    Raises:
      ConfigError: there is no certificate that could be used.
    """

    def __init__(
        self, config: TlsConfig, log: Log, unix_clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._log = log
        self._unix_clock = unix_clock
        self._certificate = load_certificate(config)
        self._tell()

    @property
    def certificate(self) -> Certificate:
        return self._certificate

    def wrap(self, sock: socket.socket, peer: tuple[str, int] | None) -> TlsSocket | None:
        """Speak TLS on a socket that was accepted. Waits for nothing. Takes it over.

        Returns:
          None: the client is gone already.
        """
        try:
            wrapped = self._certificate.context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
        except (OSError, ValueError):
            sock.close()
            return None
        assert isinstance(wrapped, TlsSocket)
        wrapped.note_failure = functools.partial(self._note_failure, peer)
        try:
            wrapped.getpeername()
        except OSError:  # then there is no TLS on it, either
            wrapped.close()
            return None
        return wrapped

    def prepare(self) -> tuple[str, Callable[[], None]] | None:
        """Read both files again, and check them. Changes nothing yet.

        Returns:
          What changed, and what puts it into force; None: nothing has changed.

        Raises:
          ConfigError: they cannot be used, or are worse than what holds.
        """
        found = load_certificate(self._config)
        if found.chain == self._certificate.chain:
            return None
        if found.problem and not self._certificate.problem:
            name = self._config.certificate_file
            raise ConfigError(f"certificate file {name}: clients would refuse it: {found.problem}")
        return "tls.certificate_file", functools.partial(self._replace, found)

    async def watch(self) -> None:
        """Warn each day, when it has expired or soon will have. Until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            expires_unix_s = self._certificate.expires_unix_s
            if expires_unix_s is None or expires_unix_s - self._unix_clock() < EXPIRES_SOON_S:
                self._tell()

    def _replace(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self._tell()

    def _tell(self) -> None:
        found = self._certificate
        fields = {"file": self._config.certificate_file, "sha256": found.fingerprint}
        if found.expires_unix_s is None:
            self._log.error("tls_certificate_bad", problem=found.problem, **fields)
            return
        left_s = found.expires_unix_s - self._unix_clock()
        if left_s < 0:
            self._log.error("tls_certificate_bad", problem="it has expired", **fields)
            return
        tell = self._log.warning if left_s < EXPIRES_SOON_S else self._log.info
        tell("tls_certificate", days_left=int(left_s // 86_400), **fields)

    def _note_failure(self, peer: tuple[str, int] | None, reason: str) -> None:
        name = f"{peer[0]}:{peer[1]}" if peer else "unix"
        self._log.debug("tls_failed", peer=name, reason=reason)


def load_certificate(config: TlsConfig) -> Certificate:
    """Read the certificate and its key, and try them out.

    Raises:
      ConfigError: names the file that cannot be used, and why.
    """
    certificate_path = secret_path(config.certificate_file)
    chain = _read_chain(certificate_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([_ALPN])
    context.sslsocket_class = TlsSocket
    with open_secret_file(secret_path(config.key_file)) as descriptor:
        _load_key(context, config, certificate_path, descriptor)
    expires_unix_s, problem = _try_out(context, chain)
    return Certificate(
        context, chain, hashlib.sha256(chain[0]).hexdigest(), expires_unix_s, problem
    )


def _read_chain(path: Path) -> tuple[bytes, ...]:
    """The certificates of a file, in DER form. What else stands in it is left alone."""
    try:
        # A pipe in its place is empty, and makes nobody wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            raw = file.read(CERTIFICATE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"certificate file {path}: {error.strerror}") from error
    found = _PEM.findall(raw.decode("latin-1")) if len(raw) <= CERTIFICATE_BYTES_MAX else []
    try:
        chain = tuple(ssl.PEM_cert_to_DER_cert(each) for each in found)
    except ValueError:
        chain = ()
    if not chain:
        raise ConfigError(f"certificate file {path}: expected a certificate in PEM form")
    return chain


def _load_key(
    context: ssl.SSLContext, config: TlsConfig, certificate_path: Path, descriptor: int
) -> None:
    """The key is read by way of the descriptor that was checked."""
    try:
        context.load_cert_chain(
            certificate_path, f"/proc/self/fd/{descriptor}", password=_refuse_passphrase
        )
    except _PassphraseError:
        message = "has a passphrase, and nobody could type it when the server starts by itself"
        raise ConfigError(f"key file {config.key_file} {message}") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is not the key of certificate file {config.certificate_file}"
        else:
            problem = (
                f"and certificate file {config.certificate_file}: expected a key and its "
                f"certificate in PEM form, got {error.reason or 'neither'}"
            )
        raise ConfigError(f"key file {config.key_file} {problem}") from error
    except OSError as error:
        raise ConfigError(f"key file {config.key_file}: {error.strerror}") from error


class _PassphraseError(Exception):
    """The key has one."""


def _refuse_passphrase() -> Never:
    raise _PassphraseError


def _try_out(server: ssl.SSLContext, chain: tuple[bytes, ...]) -> tuple[int | None, str]:
    """Have a client that trusts this certificate, whatever its name, shake hands with it.

    Returns:
      When it expires, in Unix time, and ""; or None and why the client refused.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.load_verify_locations(cadata=b"".join(chain))
        ends = [
            client.wrap_bio(to_client, to_server),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        for _ in range(_HANDSHAKE_ROUNDS):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        shown = ends[0].getpeercert()
    except ssl.SSLCertVerificationError as error:
        return None, error.verify_message
    except (ssl.SSLError, ValueError) as error:
        return None, str(error)
    if not shown:
        return None, "the handshake did not end"
    return int(ssl.cert_time_to_seconds(str(shown["notAfter"]))), ""
