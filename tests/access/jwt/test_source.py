"""Keys from a file and from an address: only from where they may come, and within bounds."""

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from rbee.supervisor.access.jwt import source
from rbee.supervisor.access.jwt.addresses import may_be_asked, parse_networks
from rbee.supervisor.access.jwt.key_set import SET_BYTES_MAX, KeySetError
from rbee.supervisor.access.jwt.source import FileSource, UrlSource, read_key_file
from tests.access.jwt.issuer import config, key_set
from tests.access.jwt.site import Site, open_site

LOOPBACK = ("127.0.0.0/8", "::1/128")


# --- addresses


NOT_PUBLIC = """
127.0.0.1 127.8.9.1 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 192.0.2.1
198.18.0.1 224.0.0.1 239.1.1.1 255.255.255.255 240.0.0.1 127.1 2130706433 0x7f000001 localhost
:: ::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 ff02::1 ff0e::1 2001:db8::1 1.2.3.4.5
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
2002:7f00:1:: 2002:a00:1:: 2001:0:4136:e378:8000:63bf:80ff:fffe
"""


@pytest.mark.parametrize("address", ["", *NOT_PUBLIC.split()])
def test_what_is_not_public_is_not_asked(address: str) -> None:
    assert not may_be_asked(address, ())


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"],
)
def test_what_is_public_is_asked(address: str) -> None:
    assert may_be_asked(address, ())


def test_an_operator_names_the_networks_that_may_be_asked_all_the_same() -> None:
    allowed = parse_networks(("10.1.0.0/16", "fd00::/8"))
    assert may_be_asked("10.1.2.3", allowed)
    assert may_be_asked("::ffff:10.1.2.3", allowed)
    assert may_be_asked("fd00::1", allowed)
    assert not may_be_asked("10.2.0.1", allowed)
    assert not may_be_asked("127.0.0.1", allowed)


# --- an address


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as site:
        yield site


def url_source(site: Site, **more: Any) -> UrlSource:
    given: dict[str, Any] = {
        "jwks_url": site.url,
        "jwks_ca_file": str(site.certificate_file),
        "jwks_networks": LOOPBACK,
        **more,
    }
    return UrlSource(config(**given))


async def test_keys_come_from_an_address_under_the_name_that_was_configured(site: Site) -> None:
    seen: list[str] = []

    def look(handler: http.server.BaseHTTPRequestHandler) -> None:
        seen.extend([handler.headers["host"], handler.path, handler.headers["accept-encoding"]])
        site.answer(handler)

    site.handle = look
    assert await url_source(site).read() == site.body
    assert seen == [site.url.split("/")[2], "/keys?of=rbee", "identity"]


async def test_a_private_address_is_refused_before_it_is_asked(site: Site) -> None:
    with pytest.raises(KeySetError, match=r"localhost is at .*not public; .*jwks_networks"):
        await url_source(site, jwks_networks=()).read()
    assert site.asked == 0


async def test_a_name_that_moves_after_it_was_checked_is_not_asked_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = source.trio.socket.getaddrinfo

    async def resolve(host: str, *more: Any, **named: Any) -> Any:
        asked.append(host)
        return await real(host, *more, **named)

    monkeypatch.setattr(source.trio.socket, "getaddrinfo", resolve)
    assert await url_source(site).read() == site.body
    # What connects asks the resolver for the number only, which no server of names can change.
    assert asked[0] == "localhost"
    assert {"127.0.0.1", "::1"} >= set(asked[1:])


async def test_a_certificate_that_nobody_vouches_for_is_refused(site: Site) -> None:
    with pytest.raises(KeySetError, match="certificate verify failed"):
        await url_source(site, jwks_ca_file="").read()
    assert site.asked == 0


async def test_a_certificate_for_another_name_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(_host: str, port: int, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(source.trio.socket, "getaddrinfo", resolve)
    other = site.url.replace("localhost", "id.example.org")
    with pytest.raises(KeySetError, match="Hostname mismatch"):
        await url_source(site, jwks_url=other).read()


@pytest.mark.parametrize(
    ("status", "headers", "body", "problem"),
    [
        (302, {"location": "http://169.254.169.254/"}, b"", "status 302"),
        (404, {}, b"no", "status 404"),
        (500, {}, b"", "status 500"),
        (200, {"content-encoding": "gzip"}, b"\x1f\x8b", "an encoding that was not asked for"),
        (200, {}, b" " * (SET_BYTES_MAX + 1), "at most 262144 bytes"),
        (200, {"content-length": "99"}, b"{", "cannot be asked"),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    site: Site, status: int, headers: dict[str, str], body: bytes, problem: str
) -> None:
    site.handle = lambda handler: site.send(handler, status, headers, body)
    with pytest.raises(KeySetError, match=problem):
        await url_source(site).read()
    assert site.asked == 1


async def test_an_answer_that_does_not_come_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "FETCH_TIMEOUT_S", 0.2)

    def stall(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.rfile.read(1)  # until the other end hangs up

    site.handle = stall
    with pytest.raises(KeySetError, match=r"no answer within 0\.2 s"):
        await url_source(site).read()


async def test_certificates_on_a_disk_that_hangs_hold_one_thread_and_nobody_who_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    thaws, hung = threading.Event(), []

    def hang(ca_file: str) -> None:
        hung.append(ca_file)
        thaws.wait(10)

    monkeypatch.setattr(source, "FETCH_TIMEOUT_S", 0.1)
    monkeypatch.setattr(source, "_trust", hang)
    asked = url_source(site)
    try:
        for _ in range(2):
            with pytest.raises(KeySetError, match=r"no answer within 0\.1 s"):
                await asked.read()
        assert len(hung) == 1
    finally:
        thaws.set()


async def test_a_proxy_of_the_environment_is_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await url_source(site).read() == site.body


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 80 + ".invalid", "127.0.0.1"])
async def test_an_address_where_nobody_is_can_not_be_asked(site: Site, host: str) -> None:
    url = f"https://{host}:1/keys"
    with pytest.raises(KeySetError, match=r"cannot be asked|no name of a host"):
        await url_source(site, jwks_url=url).read()


# --- a file


async def test_keys_come_from_a_file_also_through_a_link(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set())
    path.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert await FileSource(link).read() == key_set()


async def test_a_file_on_a_disk_that_hangs_holds_nobody_who_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thaws = threading.Event()
    monkeypatch.setattr(source, "read_key_file", lambda _path: thaws.wait(10))
    try:
        begun_s = trio.current_time()
        with trio.move_on_after(0.05) as ending:
            await FileSource(tmp_path / "keys.json").read()
        assert ending.cancelled_caught
        assert trio.current_time() - begun_s < 5
    finally:
        thaws.set()


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set())
    path.chmod(mode)
    with pytest.raises(KeySetError, match=f"nobody else may write it: .*mode {mode:04o}"):
        read_key_file(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "nothing"):
        with pytest.raises(KeySetError, match=r"regular file|cannot be read"):
            read_key_file(path)
