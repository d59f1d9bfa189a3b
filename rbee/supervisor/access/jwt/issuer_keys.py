"""The issuer's keys as they are known, kept fresh.

Rule 1: keys that cannot be had, or are none, change nothing: the last ones hold, within a bound.
Rule 2: only `run`, `open` and what `prepare` hands out change what is known.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from rbee.errors import ConfigError
from rbee.jwt_config import JwtConfig
from rbee.logs import Log
from rbee.supervisor.access.jwt.freshness import Freshness
from rbee.supervisor.access.jwt.key_set import KeySetError, parse_key_set
from rbee.supervisor.access.jwt.signatures import VerifyingKeys
from rbee.supervisor.access.jwt.source import FileSource, KeySource, UrlSource, read_key_file

# How soon a change of the file is seen. A look reads it, in a thread, in some 100 us.
FILE_LOOKED_AT_EVERY_S: Final = 2.0

# Requests that may wait for keys which are being asked for. Who comes then is refused at once.
WAITING_MAX: Final = 256


class IssuerKeys:
    """Keys that JWTs may be signed with.

    Args:
      clock: monotonic.
    """

    def __init__(
        self,
        config: JwtConfig,
        log: Log,
        clock: Callable[[], float],
        source: KeySource | None = None,
    ) -> None:
        self._config = config
        self._log = log
        self._clock = clock
        refresh_s = FILE_LOOKED_AT_EVERY_S if config.jwks_file else config.jwks_refresh_s
        self._freshness = Freshness(refresh_s, config.jwks_stale_s, clock())
        self._source = source or (
            FileSource(Path(config.jwks_file)) if config.jwks_file else UrlSource(config)
        )
        self._text = b""
        self._keys: VerifyingKeys | None = None
        self._trouble = ""
        self._wanted = trio.Event()
        self._is_asking = False
        self._waiting: list[Callable[[], None]] = []

    @property
    def keys(self) -> VerifyingKeys | None:
        """None: there are none that still hold."""
        return self._keys if self._freshness.holds(self._clock()) else None

    @property
    def retry_s(self) -> float:
        """How long until they are asked for again."""
        return max(1.0, self._freshness.due_s - self._clock())

    # --- before trio runs, and at a reload

    def open(self) -> None:
        """Read the keys if they are in a file. An address is asked once `run` runs.

        Raises:
          ConfigError: the file cannot be used.
        """
        prepared = self.prepare()
        if prepared is not None:
            prepared[1]()

    def prepare(self) -> tuple[str, Callable[[], None]] | None:
        """Read and check the file again; changes nothing yet. Of an address: want it asked soon.

        Returns:
          The key of what has changed, and what puts it into force; None: nothing has.

        Raises:
          ConfigError: the file cannot be used.
        """
        path = self._config.jwks_file
        if not path:
            return None
        try:
            text = read_key_file(Path(path))
            keys = self._parse(text)
        except KeySetError as error:
            raise ConfigError(f"jwt.jwks_file {path}: {error}") from error
        if text == self._text:
            return None
        return "jwt.jwks_file", lambda: self._take(text, keys)

    # --- in trio

    def call_when_fresh(self, callback: Callable[[], None]) -> bool:
        """Have the keys asked for, and call then; a success or not. For a key that is not known.

        Returns:
          Whether it will be called: they are not asked for too often, nor for too many.
        """
        if not self._is_asking and not self._freshness.may_ask_again(self._clock()):
            return False
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting.append(callback)
        self._wanted.set()
        return True

    async def run(self) -> None:
        """Keep them fresh until cancelled."""
        while True:
            with trio.move_on_after(max(0.0, self._freshness.due_s - self._clock())):
                await self._wanted.wait()
            self._wanted = trio.Event()
            self._is_asking = True
            self._freshness.begin(self._clock())
            try:
                await self._refresh()
            finally:
                self._is_asking = False
                waiting, self._waiting = self._waiting, []
                for callback in waiting:
                    callback()

    async def _refresh(self) -> None:
        try:
            text = await self._source.read()
            keys = self._keys if text == self._text else self._parse(text)
        except KeySetError as error:
            self._freshness.fail(self._clock())
            self._note_trouble(str(error))
            return
        assert keys is not None
        self._take(text, keys)

    def _parse(self, text: bytes) -> VerifyingKeys:
        return VerifyingKeys(parse_key_set(text, self._config.algorithms))

    def _take(self, text: bytes, keys: VerifyingKeys) -> None:
        self._freshness.succeed(self._clock())
        if text != self._text:
            self._log.info("jwt_keys_loaded", keys=len(keys), left_out=keys.left_out)
        elif self._trouble:
            self._log.info("jwt_keys_available")
        self._trouble = ""
        self._text, self._keys = text, keys

    def _note_trouble(self, problem: str) -> None:
        if self._keys is None:
            effect = "no JWT is taken"
        elif self.keys is None:
            effect = "no JWT is taken any more: the last keys are too old"
        else:
            effect = f"the last keys hold for {self._config.jwks_stale_s:g} s"
        if effect + problem != self._trouble:
            self._trouble = effect + problem
            self._log.warning("jwt_keys_unavailable", problem=problem, effect=effect)
