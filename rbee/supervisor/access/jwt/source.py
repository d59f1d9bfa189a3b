"""Where the issuer's keys come from: a file that only its owner may change, or an https address."""

import http
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import h11
import trio

from rbee.jwt_config import JwtConfig
from rbee.supervisor.access.jwt.addresses import Network, may_be_asked, parse_networks
from rbee.supervisor.access.jwt.key_set import SET_BYTES_MAX, KeySetError
from rbee.threads import thread_refusals

FETCH_TIMEOUT_S: Final = 5.0
HEAD_BYTES_MAX: Final = 16_384
ADDRESSES_MAX: Final = 4  # that are tried, one after the other

_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_ROOT: Final = 0
_HTTPS_PORT: Final = 443


class KeySource(Protocol):
    """Gives the text of a key set."""

    async def read(self) -> bytes:
        """Raises: KeySetError: it cannot be had now."""
        ...


def read_key_file(path: Path) -> bytes:
    """Read a key set from a file. It may be a link, as what is mounted into containers is.

    Raises:
      KeySetError: it cannot be read, or others may change it.
    """
    try:
        descriptor = os.open(path, _OPEN)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise KeySetError("it must be a regular file")
            if found.st_uid not in {os.geteuid(), _ROOT} or found.st_mode & _OTHERS_MAY_WRITE:
                raise KeySetError(
                    "it must be root's or ours, and nobody else may write it: found uid"
                    f" {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
                )
            return file.read(SET_BYTES_MAX + 1)
    except OSError as error:
        raise KeySetError(f"it cannot be read: {error.strerror}") from error


class FileSource:
    """A file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_reader = trio.CapacityLimiter(1)

    async def read(self) -> bytes:
        try:
            with thread_refusals():
                return await trio.to_thread.run_sync(
                    read_key_file, self._path, limiter=self._one_reader, abandon_on_cancel=True
                )
        except OSError as error:
            raise KeySetError(f"it cannot be read: {error.strerror}") from error


class UrlSource:
    """An https address. What it resolves to is checked, and then asked under that very address."""

    def __init__(self, config: JwtConfig) -> None:
        parts = urlsplit(config.jwks_url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or _HTTPS_PORT
        self._authority = parts.netloc
        self._target = config.jwks_url.removeprefix(f"https://{parts.netloc}") or "/"
        self._ca_file = config.jwks_ca_file or None
        self._allowed: tuple[Network, ...] = parse_networks(config.jwks_networks)
        # A disk that hangs holds one thread, not one more with each try.
        self._one_reader = trio.CapacityLimiter(1)

    async def read(self) -> bytes:
        problem: Exception | None = None
        try:
            with trio.fail_after(FETCH_TIMEOUT_S), thread_refusals():
                for address in await self._resolve():
                    try:
                        return await self._ask(address)
                    except (h11.ProtocolError, trio.BrokenResourceError, OSError) as error:
                        problem = error
        except trio.TooSlowError:
            raise KeySetError(f"no answer within {FETCH_TIMEOUT_S:g} s") from None
        except OSError as error:
            problem = error
        cause = problem.__cause__ if isinstance(problem, trio.BrokenResourceError) else problem
        raise KeySetError(f"it cannot be asked: {cause}") from problem

    async def _resolve(self) -> list[str]:
        try:
            found = await trio.socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise KeySetError(f"{self._host} is no name of a host") from error
        addresses = [str(entry[4][0]) for entry in found]
        good = [each for each in addresses if may_be_asked(each, self._allowed)]
        if not good:
            raise KeySetError(
                f"{self._host} is at {', '.join(addresses[:ADDRESSES_MAX])}, which is not public;"
                " [jwt] jwks_networks can allow it"
            )
        return good[:ADDRESSES_MAX]

    async def _ask(self, address: str) -> bytes:
        # The certificates are read each time: who vouches for the address may change.
        trust = await trio.to_thread.run_sync(
            _trust, self._ca_file, limiter=self._one_reader, abandon_on_cancel=True
        )
        socket_stream = await trio.open_tcp_stream(address, self._port)
        async with trio.SSLStream(
            socket_stream, trust, server_hostname=self._host, https_compatible=True
        ) as stream:
            return await self._exchange(stream)

    async def _exchange(self, stream: trio.abc.Stream) -> bytes:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        headers = [
            ("host", self._authority),
            ("accept-encoding", "identity"),
            ("connection", "close"),
        ]
        request = h11.Request(method="GET", target=self._target, headers=headers)
        await stream.send_all(connection.send(request) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        body = b""
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
                case h11.Response() as response:
                    _check_response(response)
                case h11.Data() as data:
                    body += data.data
                    if len(body) > SET_BYTES_MAX:
                        raise KeySetError(f"it must be at most {SET_BYTES_MAX} bytes")
                case h11.EndOfMessage():
                    return body
                case h11.InformationalResponse():
                    pass
                case other:
                    raise KeySetError(f"it broke off: {other}")


def _check_response(response: h11.Response) -> None:
    """No redirection is followed: it is this address or none."""
    if response.status_code != http.HTTPStatus.OK:
        raise KeySetError(f"it answered with status {response.status_code}")
    encodings = [value for name, value in response.headers if name == b"content-encoding"]
    if encodings not in ([], [b"identity"]):
        raise KeySetError("it answered in an encoding that was not asked for")


def _trust(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
