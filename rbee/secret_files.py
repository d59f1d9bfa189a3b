"""Secrets from files: checked on the opened descriptor, and held so that nothing shows them.

Rule 1: what is checked is the descriptor that is read, and that of its folder. Paths may change
        meanwhile.
Rule 2: no error, no log line and no representation holds a secret, or how long it is.
Rule 3: keys for different purposes are derived; the secret itself is a key for nothing.
"""

import contextlib
import ctypes
import hmac
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Never

from rbee.errors import ConfigError

SECRET_BYTES_MAX: Final = 1024 * 1024

# What stands before the name of a credential, where the configuration names a file.
CREDENTIAL_PREFIX: Final = "credential:"
KEY_BYTES: Final = 32

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIGEST_BYTES: Final = 32  # of SHA-256
_ROOT: Final = 0
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_CREDENTIAL_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)


class Secret:
    """Bytes that no representation shows, in memory that is not swapped out where that may be.

    `reveal` hands out copies, which Python cannot wipe: take one late, and keep it short.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = bytearray(data)
        _lock_in_memory(self._data)

    def reveal(self) -> bytes:
        return bytes(self._data)

    def wipe(self) -> None:
        """Overwrite it with zeros: from now on it is empty."""
        for index in range(len(self._data)):
            self._data[index] = 0
        self._data.clear()

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        """In a time that does not tell where they differ."""
        return isinstance(other, Secret) and hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # a hash would tell secrets apart

    def __reduce_ex__(self, _protocol: object) -> Never:
        raise TypeError("a Secret is neither copied nor pickled")

    def __getstate__(self) -> Never:
        raise TypeError("a Secret is neither copied nor pickled")

    def __del__(self) -> None:
        self.wipe()


def secret_path(text: str) -> Path:
    """The file that the configuration means: a path, or ``credential:NAME`` of systemd.

    Source: systemd.exec(5), LoadCredential=.

    Raises:
      ConfigError: it is no name of a credential, or there are no credentials.
    """
    if not text.startswith(CREDENTIAL_PREFIX):
        return Path(text)
    name = text.removeprefix(CREDENTIAL_PREFIX)
    if not _CREDENTIAL_NAME.fullmatch(name) or name in {".", ".."}:
        raise ConfigError(f"{text!r}: a credential's name is of letters, digits and '._-'")
    folder = os.environ.get(_CREDENTIALS)
    if not folder:
        raise ConfigError(
            f"{text}: there are no credentials (${_CREDENTIALS} is not set); in the unit:"
            f" LoadCredential={name}:/path/of/the/file"
        )
    return Path(folder) / name


def read_secret_file(path: Path) -> Secret:
    """Read a secret: the one line of a file that nobody else can read.

    Raises:
      ConfigError: there is no such file, or it is not as a secret's file must be.
    """
    with open_secret_file(path) as descriptor:
        try:
            secret = _read(descriptor)
        except OSError as error:
            raise ConfigError(f"secret file {path} cannot be read: {error.strerror}") from error
    if isinstance(secret, str):
        raise ConfigError(f"secret file {path} {secret}")
    return secret


@contextlib.contextmanager
def open_secret_file(path: Path) -> Iterator[int]:
    """A descriptor of a file that nobody else can read, until the end of the block.

    Raises:
      ConfigError: there is no such file, or it is not as a secret's file must be.
    """
    descriptors: list[int] = []
    try:
        try:
            descriptors.append(os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            descriptors.append(os.open(path.name, _FLAGS, dir_fd=descriptors[0]))
        except OSError as error:
            is_link = path.is_symlink()
            what = "is a symbolic link" if is_link else f"cannot be opened: {error.strerror}"
            raise ConfigError(f"secret file {path} {what}") from error
        folder, file = (os.fstat(each) for each in descriptors)
        problem = _problem(file, is_credential=_is_credential(path)) or _folder_problem(folder)
        if problem:
            raise ConfigError(f"secret file {path} {problem}")
        yield descriptors[1]
    finally:
        for each in descriptors:
            os.close(each)


def derive_key(secret: Secret, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, by HKDF-SHA256 without salt; ``info`` is the purpose."""
    return hkdf_sha256(secret.reveal(), salt=b"", info=purpose.encode(), length=KEY_BYTES)


def hkdf_sha256(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869: extract, then expand."""
    assert 0 < length <= 255 * _DIGEST_BYTES, length
    pseudo_random_key = hmac.digest(salt or bytes(_DIGEST_BYTES), secret, "sha256")
    block, output = b"", b""
    for counter in range(1, -(-length // _DIGEST_BYTES) + 1):
        block = hmac.digest(pseudo_random_key, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def _is_credential(path: Path) -> bool:
    folder = os.environ.get(_CREDENTIALS)
    return bool(folder) and path.parent == Path(str(folder))


def _folder_problem(found: os.stat_result) -> str:
    """What is wrong with the folder of a secret's file; "" for nothing."""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in {os.geteuid(), _ROOT}:
        return f"lies in a folder of uid {found.st_uid}, who could put another in its place"
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return f"lies in a folder where others could put another in its place: mode {mode:04o}"
    return ""


def _problem(found: os.stat_result, *, is_credential: bool = False) -> str:
    """What is wrong with the file of a secret; "" for nothing."""
    ours = {os.geteuid(), _ROOT}
    mode = stat.S_IMODE(found.st_mode)
    if is_credential and found.st_uid == found.st_gid == _ROOT:
        mode &= ~stat.S_IRGRP  # so shows an access list that lets in the service's user alone
    if not stat.S_ISREG(found.st_mode):
        return "must be a regular file"
    if found.st_uid not in ours:
        return f"must be owned by uid {os.geteuid()} or root, found uid {found.st_uid}"
    if mode & 0o077:
        found_mode = stat.S_IMODE(found.st_mode)
        return f"must be closed to others (0600 or 0400), found {found_mode:04o}"
    if found.st_nlink != 1:
        return f"must have one name, found {found.st_nlink} hard links"
    if found.st_size > SECRET_BYTES_MAX:
        return f"must be at most {SECRET_BYTES_MAX} bytes, found {found.st_size}"
    return ""


def _read(descriptor: int) -> Secret | str:
    """The secret, or what is wrong with it."""
    data = bytearray()
    try:
        while part := os.read(descriptor, SECRET_BYTES_MAX + 1 - len(data)):
            data += part
        if len(data) > SECRET_BYTES_MAX:
            return f"must be at most {SECRET_BYTES_MAX} bytes"
        if data.endswith(b"\n"):
            del data[-1]
        if not data:
            return "must not be empty"
        if b"\n" in data or b"\r" in data or b"\0" in data:
            return "must hold exactly one line of text, without carriage returns and NULs"
        return Secret(data)
    finally:
        data[:] = bytes(len(data))


def _lock_in_memory(data: bytearray) -> None:
    """Keep it out of the swap, as far as RLIMIT_MEMLOCK goes. Small pages are shared, and locks
    do not count: it is never unlocked.
    """
    if not data:
        return
    with contextlib.suppress(OSError, AttributeError):  # no libc, or another one
        address = ctypes.addressof(ctypes.c_char.from_buffer(data))
        ctypes.CDLL(None).mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(data)))
