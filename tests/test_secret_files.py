"""Secrets from files: what is refused, and that nothing shows what was read."""

import copy
import json
import os
import pickle
import traceback
from pathlib import Path

import msgspec
import pytest

from rbee.errors import ConfigError
from rbee.secret_files import (
    SECRET_BYTES_MAX,
    Secret,
    _problem,
    derive_key,
    hkdf_sha256,
    read_secret_file,
    secret_path,
)

CANARY = "canary-4f1c9a77"


def secret_file(path: Path, data: bytes = CANARY.encode(), mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_one_line_of_a_file_that_is_closed_to_others_is_read(
    mode: int, end: bytes, tmp_path: Path
) -> None:
    path = secret_file(tmp_path / "secret", CANARY.encode() + end, mode)
    assert read_secret_file(path).reveal() == CANARY.encode()


@pytest.mark.parametrize(
    "mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777, 0o440]
)
def test_a_file_that_is_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secret", mode=mode)
    with pytest.raises(ConfigError, match=f"must be closed to others .* found {mode:04o}"):
        read_secret_file(path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "must not be empty"),
        (b"\n", "must not be empty"),
        (b"first\nsecond\n", "exactly one line"),
        (b"first\n\n", "exactly one line"),
        (b"first\r\n", "carriage returns"),
        (b"first\0second\n", "NULs"),
        (b"x" * (SECRET_BYTES_MAX + 1), f"at most {SECRET_BYTES_MAX} bytes"),
    ],
)
def test_what_is_not_one_line_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        read_secret_file(secret_file(tmp_path / "secret", data))
    assert "first" not in str(refused.value)


def test_the_largest_secret_is_read(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secret", b"x" * (SECRET_BYTES_MAX - 1) + b"\n")
    assert len(read_secret_file(path).reveal()) == SECRET_BYTES_MAX - 1


def test_a_link_a_folder_a_pipe_and_a_device_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(secret_file(tmp_path / "secret"))
    with pytest.raises(ConfigError, match="is a symbolic link"):
        read_secret_file(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)  # nobody writes: it must not wait, either
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ConfigError, match="must be a regular file"):
            read_secret_file(path)


def test_a_second_name_is_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secret")
    os.link(path, tmp_path / "other")
    with pytest.raises(ConfigError, match="one name, found 2 hard links"):
        read_secret_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/secret cannot be opened: No such file"):
        read_secret_file(tmp_path / "secret")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secret")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="must be owned by uid 0 or root, found uid 12345"):
        read_secret_file(path)


def test_what_is_checked_is_what_is_read(tmp_path: Path) -> None:
    """The check sees the descriptor's file, whatever the path names by then."""
    path = secret_file(tmp_path / "secret", mode=0o644)
    descriptor = os.open(path, os.O_RDONLY)
    path.unlink()
    secret_file(path)
    assert "closed to others" in _problem(os.fstat(descriptor))
    os.close(descriptor)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o730])
def test_a_folder_where_others_could_replace_it_is_refused(mode: int, tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secret")
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match=f"others could put another .* mode {mode:04o}"):
        read_secret_file(path)
    tmp_path.chmod(mode | 0o1000)  # where only owners may rename, as in /tmp
    assert read_secret_file(path).reveal() == CANARY.encode()
    tmp_path.chmod(0o755)  # others may look for it
    assert read_secret_file(path).reveal() == CANARY.encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    path = secret_file(tmp_path / "theirs" / "secret")
    os.chown(path.parent, 12345, 12345)
    with pytest.raises(ConfigError, match="folder of uid 12345"):
        read_secret_file(path)


def test_a_credential_of_systemd_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    path = secret_file(tmp_path / "audit-secret", mode=0o400)
    assert secret_path("credential:audit-secret") == path
    assert read_secret_file(path).reveal() == CANARY.encode()
    assert secret_path("/etc/rbee/credential:x") == Path("/etc/rbee/credential:x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of root")
def test_a_credential_that_an_access_list_opens_to_the_service_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where systemd cannot give it away it adds an access list, which shows as the group's mode."""
    path = secret_file(tmp_path / "secret", mode=0o440)
    with pytest.raises(ConfigError, match="must be closed to others"):
        read_secret_file(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret_file(path).reveal() == CANARY.encode()
    path.chmod(0o444)
    with pytest.raises(ConfigError, match=r"must be closed to others .* found 0444"):
        read_secret_file(path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "é", "a\0b", "x" * 256])
def test_what_is_no_name_of_a_credential_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match="a credential's name is of letters"):
        secret_path(f"credential:{name}")


def test_without_credentials_the_message_says_how_to_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match="LoadCredential=key:/path"):
        secret_path("credential:key")


def test_no_representation_shows_a_secret_or_how_long_it_is() -> None:
    secret, longer = Secret(CANARY.encode()), Secret(b"x" * 1000)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>30}".strip()]
    assert set(shown) == {repr(longer)}
    assert CANARY not in repr([secret])
    for reveal in (
        lambda: pickle.dumps(secret),
        lambda: copy.copy(secret),
        lambda: copy.deepcopy(secret),
        secret.__getstate__,
        lambda: json.dumps(secret),
        lambda: msgspec.json.encode(secret),
        lambda: bytes(secret),  # type: ignore[call-overload]
        lambda: list(secret),  # type: ignore[call-overload]
        lambda: len(secret),  # type: ignore[arg-type]
        lambda: vars(secret),
        lambda: hash(secret),
    ):
        with pytest.raises(TypeError) as refused:
            reveal()
        assert CANARY not in str(refused.value)
    assert CANARY not in str(dir(secret))


def test_a_traceback_with_a_secret_at_hand_does_not_show_it(tmp_path: Path) -> None:
    try:
        read_secret_file(secret_file(tmp_path / "secret", f"{CANARY}\n{CANARY}\n".encode()))
    except ConfigError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert CANARY not in "".join(told.format())
    else:
        raise AssertionError("two lines were taken")


def test_a_secret_that_was_wiped_is_empty() -> None:
    secret = Secret(CANARY.encode())
    data = secret._data
    secret.wipe()
    assert secret.reveal() == b""
    assert not data


def test_secrets_are_compared_by_what_they_hold() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"


# RFC 5869, appendix A: secret, salt, info, output.
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
            "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
            "cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        "0b" * 22,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("secret", "salt", "info", "output"), RFC_5869)
def test_keys_are_derived_as_rfc_5869_has_it(
    secret: str, salt: str, info: str, output: str
) -> None:
    found = hkdf_sha256(
        bytes.fromhex(secret),
        salt=bytes.fromhex(salt),
        info=bytes.fromhex(info),
        length=len(output) // 2,
    )
    assert found.hex() == output


def test_keys_of_two_purposes_have_nothing_in_common() -> None:
    secret = Secret(CANARY.encode())
    keys = {derive_key(secret, purpose) for purpose in ("one", "two", "three")}
    assert len(keys) == 3
    assert all(len(key) == 32 for key in keys)
