"""Connections under TLS: what is shown to clients, and what hostile ones can do."""

import itertools
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from rbee.config import TlsConfig
from rbee.errors import ConfigError
from rbee.supervisor.http_server import Tls
from tests.certificates import Pair, make_pair, needs_openssl
from tests.http_server.harness import (
    AT_ONCE_S,
    CLOSE,
    GET,
    MOMENT_S,
    Client,
    RecordingLog,
    Server,
    echo,
    end_stream,
    say_ok,
    start,
    start_stream,
)

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


def config_of(pair: Pair) -> TlsConfig:
    return TlsConfig(certificate_file=str(pair.certificate), key_file=str(pair.key))


async def start_tls(nursery: trio.Nursery, pair: Pair, app: Any, **limits: Any) -> Server:
    log = RecordingLog()
    tls = Tls(config_of(pair), log)
    return await start(nursery, app, tls=tls, log=log, **limits)


def trusting(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pair.certificate))


@asynccontextmanager
async def connect(
    server: Server, pair: Pair, context: ssl.SSLContext | None = None
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    plain = await trio.open_tcp_stream("127.0.0.1", server.port)
    stream = trio.SSLStream(plain, context or trusting(pair), server_hostname="localhost")
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def ask(stream: trio.SSLStream[trio.SocketStream], request: bytes) -> bytes:
    """One answer that ends its connection, to the TLS layer's own last word."""
    with trio.fail_after(10):
        await stream.send_all(request)
        return b"".join([part async for part in stream])


async def test_a_client_that_trusts_the_certificate_is_answered(
    nursery: trio.Nursery, pair: Pair
) -> None:
    server = await start_tls(nursery, pair, say_ok)
    context = trusting(pair)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with connect(server, pair, context) as stream:
        assert (await ask(stream, CLOSE)).endswith(b"\r\n\r\nok")
        assert stream.selected_alpn_protocol() == "http/1.1"
        assert stream.version() == "TLSv1.3"


async def test_the_app_is_told_that_it_is_https(nursery: trio.Nursery, pair: Pair) -> None:
    schemes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        schemes.append(scope["scheme"])
        await say_ok(scope, receive, send)

    server = await start_tls(nursery, pair, app)
    async with connect(server, pair) as stream:
        await ask(stream, CLOSE)
    assert schemes == ["https"]


async def test_tls_1_2_is_taken_and_what_is_older_is_not(nursery: trio.Nursery, pair: Pair) -> None:
    server = await start_tls(nursery, pair, say_ok)
    context = trusting(pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with connect(server, pair, context) as stream:
        await ask(stream, CLOSE)
        assert stream.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with connect(server, pair, context) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
    reasons = [line["reason"] for line in server.log.of("tls_failed")]
    assert reasons == ["UNSUPPORTED_PROTOCOL"]


async def test_plain_http_is_answered_by_a_close_and_a_line(
    nursery: trio.Nursery, pair: Pair
) -> None:
    server = await start_tls(nursery, pair, say_ok)
    async with await server.connect() as client:
        await client.send(GET)
        with trio.fail_after(AT_ONCE_S):
            await client.read_all()
    assert server.log.of("tls_failed")[0]["reason"] == "HTTP_REQUEST"
    assert not server.log.errors


async def test_whoever_does_not_finish_a_handshake_is_closed(
    nursery: trio.Nursery, pair: Pair
) -> None:
    server = await start_tls(nursery, pair, say_ok, headers_timeout_s=MOMENT_S)
    async with await server.connect() as silent, await server.connect() as slow:
        await slow.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")  # the begin of a ClientHello
        with trio.fail_after(MOMENT_S + AT_ONCE_S):
            assert await silent.read_all() == b""
            assert await slow.read_all() == b""


async def test_a_client_that_goes_in_its_handshake_disturbs_nobody(
    nursery: trio.Nursery, pair: Pair
) -> None:
    server = await start_tls(nursery, pair, say_ok)
    for _ in range(30):
        client: Client = await server.connect()
        client.send_unseen(b"\x16\x03\x01\x02\x00")
        await client.reset()
    async with connect(server, pair) as stream:
        assert (await ask(stream, CLOSE)).endswith(b"ok")
    assert not server.log.errors


async def test_a_client_over_the_cap_is_closed(nursery: trio.Nursery, pair: Pair) -> None:
    server = await start_tls(nursery, pair, say_ok, connections_max=1)
    async with connect(server, pair) as stream:
        await stream.do_handshake()
        async with await server.connect() as other:
            with trio.fail_after(AT_ONCE_S):
                assert await other.read_all() == b""
        assert (await ask(stream, CLOSE)).endswith(b"ok")


async def test_a_large_answer_arrives_whole_however_slowly_it_is_read(
    nursery: trio.Nursery, pair: Pair
) -> None:
    body = b"0123456789abcdef" * 500_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    server = await start_tls(nursery, pair, app)
    async with connect(server, pair) as stream:
        await stream.send_all(CLOSE)
        received = bytearray()
        with trio.fail_after(20):
            while part := await stream.receive_some(300_000):
                received += part
                if len(received) < 200_000:
                    await trio.sleep(0.01)
    assert received.partition(b"\r\n\r\n")[2] == body


async def test_a_large_body_arrives_whole_in_records_of_any_size(
    nursery: trio.Nursery, pair: Pair
) -> None:
    body = bytes(range(256)) * 2000
    head = b"POST / HTTP/1.1\r\nHost: rbee\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    server = await start_tls(nursery, pair, echo)
    async with connect(server, pair) as stream:
        await stream.send_all(head % len(body))
        at = 0
        for size in itertools.cycle((1, 16_384, 70_000, 333)):
            await stream.send_all(body[at : at + size])
            at += size
            if at >= len(body):
                break
        received = b""
        with trio.fail_after(10):
            while part := await stream.receive_some():
                received += part
    assert received.partition(b"\r\n\r\n")[2] == body


async def test_much_that_is_sent_ahead_is_answered_in_its_turn(
    nursery: trio.Nursery, pair: Pair
) -> None:
    async def slow_echo(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(MOMENT_S)
        await echo(scope, receive, send)

    server = await start_tls(nursery, pair, slow_echo)
    head = b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 200000\r\n%b\r\n"
    last = head % b"Connection: close\r\n" + b"b" * 200_000
    async with connect(server, pair) as stream:
        answers = await ask(stream, head % b"" + b"a" * 200_000 + last)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.count(b"a" * 200_000) == answers.count(b"b" * 200_000) == 1
    assert server.log.errors == []


async def test_whoever_reads_nothing_of_a_stream_is_given_up(
    nursery: trio.Nursery, pair: Pair
) -> None:
    broken: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        writer = await start_stream(scope, send)
        writer.on_broken = broken.append
        while not broken:
            writer.write_nowait(bytes(20_000))
            await trio.lowlevel.checkpoint()
        await end_stream(send)

    server = await start_tls(nursery, pair, app, parked_bytes_max=100_000)
    async with connect(server, pair) as stream:
        await stream.send_all(GET)
        with trio.fail_after(10):
            while not broken:
                await trio.sleep(0.01)
    assert broken == ["slow_client"]


# What may be used as a certificate, and what may take its place.


def refusal(config: TlsConfig) -> str:
    with pytest.raises(ConfigError) as refused:
        Tls(config, RecordingLog())
    return str(refused.value)


def test_a_certificate_that_is_missing_or_none_is_named(pair: Pair, tmp_path: Path) -> None:
    key_file = str(pair.key)
    missing = TlsConfig(certificate_file=str(tmp_path / "none.pem"), key_file=key_file)
    assert refusal(missing).endswith("none.pem: No such file or directory")
    for text in ("", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        (tmp_path / "bad.pem").write_text(text)
        bad = TlsConfig(certificate_file=str(tmp_path / "bad.pem"), key_file=key_file)
        assert "expected a" in refusal(bad)
    os.mkfifo(tmp_path / "pipe")  # nobody writes: it must not wait, either
    assert "expected a" in refusal(
        TlsConfig(certificate_file=str(tmp_path / "pipe"), key_file=key_file)
    )


def test_the_key_of_another_certificate_is_named(pair: Pair, tmp_path: Path) -> None:
    other = make_pair(tmp_path / "other")
    mixed = TlsConfig(certificate_file=str(pair.certificate), key_file=str(other.key))
    assert "is not the key of certificate file" in refusal(mixed)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "open")
    pair.key.chmod(0o644)
    assert "must be closed to others" in refusal(config_of(pair))


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "locked", passphrase="open sesame")
    assert "has a passphrase" in refusal(config_of(pair))


def test_one_of_the_two_files_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="both needed"):
        TlsConfig(key_file="key.pem")


def test_a_certificate_is_told_with_the_days_it_has_left(pair: Pair, tmp_path: Path) -> None:
    log = RecordingLog()
    found = Tls(config_of(pair), log).certificate
    (told,) = log.of("tls_certificate")
    assert told["days_left"] in (29, 30)
    assert told["sha256"] == found.fingerprint
    soon = make_pair(tmp_path / "soon", days=5)
    Tls(config_of(soon), log)
    assert [level for level, *_ in log.lines] == ["info", "warning"]


async def test_a_server_that_runs_for_months_warns_each_day_from_two_weeks_on(
    pair: Pair, autojump_clock: MockClock
) -> None:
    begun_s = time.time()
    log = RecordingLog()
    tls = Tls(config_of(pair), log, lambda: begun_s + trio.current_time())
    start_s = trio.current_time()
    with trio.move_on_at(start_s + 33.5 * 86_400):
        await tls.watch()
    told = [(level, fields.get("days_left")) for level, _, fields in log.lines]
    days_left = [days for level, days in told if level == "warning"]
    assert days_left == sorted(days_left, reverse=True)
    assert (days_left[0], days_left[-1]) == (13, 0)
    assert [level for level, _ in told].count("error") in (3, 4)


def test_one_that_clients_refuse_is_served_with_an_error_but_replaces_no_good_one(
    tmp_path: Path,
) -> None:
    log = RecordingLog()
    for_clients = make_pair(tmp_path / "clients", "-addext", "extendedKeyUsage=clientAuth")
    Tls(config_of(for_clients), log)
    assert "purpose" in log.of("tls_certificate_bad")[0]["problem"]

    good = make_pair(tmp_path / "good")
    tls = Tls(config_of(good), log)
    before = tls.certificate
    good.replace_with(for_clients)
    with pytest.raises(ConfigError, match="clients would refuse it"):
        tls.prepare()
    assert tls.certificate is before


def test_a_new_certificate_holds_once_it_is_put_into_force(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "old")
    tls = Tls(config_of(pair), RecordingLog())
    assert tls.prepare() is None
    before = tls.certificate
    pair.replace_with(make_pair(tmp_path / "new"))
    prepared = tls.prepare()
    assert prepared is not None
    assert tls.certificate is before
    key, put_into_force = prepared
    put_into_force()
    assert key == "tls.certificate_file"
    assert tls.certificate.fingerprint != before.fingerprint
    assert tls.prepare() is None
