"""Binding: every address of a name, or an error that an operator can act on."""

import errno
import select
import socket

import pytest

from rbee.errors import BindError
from rbee.supervisor.http_server import bind_sockets, stop_connecting


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_literal_or_a_name_is_listened_on(host: str) -> None:
    sockets = bind_sockets(host, 0, 16)
    ports = {each.getsockname()[1] for each in sockets}
    assert len(ports) == 1
    socket.create_connection((host, ports.pop()), 1).close()
    _close(sockets)


@pytest.mark.skipif(not socket.has_ipv6, reason="python has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_literal_is_listened_on_with_and_without_brackets(host: str) -> None:
    try:
        sockets = bind_sockets(host, 0, 16)
    except BindError as error:
        pytest.skip(str(error))
    assert sockets[0].family is socket.AF_INET6
    _close(sockets)


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    taken = bind_sockets("127.0.0.1", 0, 16)
    port = taken[0].getsockname()[1]
    with pytest.raises(BindError, match=rf"127\.0\.0\.1:{port}: another program listens there"):
        bind_sockets("127.0.0.1", port, 16)
    _close(taken)


def test_a_port_is_free_again_as_soon_as_the_server_is_gone() -> None:
    first = bind_sockets("127.0.0.1", 0, 16)
    port = first[0].getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port), 1)
    accepted, _ = _accept(first[0])
    accepted.close()  # this end goes first, and stays in TIME_WAIT
    client.close()
    _close(first)
    _close(bind_sockets("127.0.0.1", port, 16))


def _accept(listener: socket.socket) -> tuple[socket.socket, object]:
    listener.setblocking(True)
    return listener.accept()


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("no-such-name.invalid", "this name has no address"),
        ("192.0.2.1", "this machine has no such address"),
        ("", "no address to serve on was named"),
    ],
)
def test_an_address_that_cannot_be_had_is_an_error_in_words(host: str, problem: str) -> None:
    with pytest.raises(BindError, match=problem):
        bind_sockets(host, 0, 16)


def test_connections_inherit_what_the_kernel_is_to_do() -> None:
    listener = bind_sockets("127.0.0.1", 0, 16)[0]
    client = socket.create_connection(listener.getsockname(), 1)
    accepted, _ = _accept(listener)
    with client, accepted, listener:
        for option in (socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT, socket.TCP_NOTSENT_LOWAT):
            inherited = accepted.getsockopt(socket.IPPROTO_TCP, option)
            assert inherited == listener.getsockopt(socket.IPPROTO_TCP, option) != 0
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_once_nobody_may_connect_those_who_have_are_accepted_and_served(host: str) -> None:
    try:
        (listener,) = bind_sockets(host, 0, 16)
    except BindError as error:
        pytest.skip(str(error))
    address = listener.getsockname()
    known = [socket.create_connection(address[:2], 1) for _ in range(3)]
    stop_connecting(listener)
    late = socket.socket(listener.family)
    late.setblocking(False)
    assert late.connect_ex(address) == errno.EINPROGRESS
    accepted = [listener.accept()[0] for _ in known]
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    for client in known:
        client.sendall(b"hello")
    assert sorted(each.recv(5) for each in accepted) == [b"hello"] * len(known)
    _, writable, _ = select.select([], [late], [], 10)
    assert writable == [late]
    assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    _close([*known, *accepted, late])
