"""What an operator does to keys while something goes wrong, and what must come of it.

Rule 1: a deed is done, or refused with a documented error that says so; there is no third.
Rule 2: what was done is listed, and what was refused is not.
"""

from collections import Counter
from typing import Any, Final

import httpx2
import trio

from rbee.chaos.scene import LOOK_EVERY_S, Scene
from rbee.chaos.server import ASK_TIMEOUT_S, DrillError, Server

# For so long a store that can be written again may still be taken for one that cannot.
WELL_S: Final = 10.0

REFUSALS: Final = frozenset({"store_unavailable", "audit_unavailable"})


class Deeds:
    """Makes and lists keys of the server. `made` holds those that were made, by id."""

    def __init__(self, scene: Scene) -> None:
        self.made: Final[dict[str, str]] = {}
        self.refused: Final[Counter[str]] = Counter()
        self._scene = scene
        self._server = scene.server

    async def make(self) -> bool:
        """Make a key. False: it was refused, as documented.

        Raises:
          DrillError: neither.
        """
        document = await _ordered(self._server, {"role": "viewer"})
        if "error" in document:
            self.refused[document["error"]["code"]] += 1
            return False
        self.made[document["id"]] = document["key"]
        return True

    async def make_short_lived(self, life_s: float) -> str:
        """Returns: a key that expires after that time. It is not among `made`."""
        order = {"role": "viewer", "expires_in_s": int(life_s)}
        document = await _ordered(self._server, order)
        if "error" in document:
            raise DrillError(f"a key to be made: {document['error']['code']}")
        return str(document["key"])

    async def make_until_refused(self, timeout_s: float) -> None:
        """Raises: DrillError: all could be made."""
        with trio.move_on_after(timeout_s):
            while await self.make():
                await trio.sleep(LOOK_EVERY_S)
            return
        raise DrillError(f"keys could be made for {timeout_s:g} s, whatever was wrong")

    async def make_until_done(self) -> None:
        """Raises: DrillError: none can be made."""
        with trio.move_on_after(WELL_S):
            while not await self.make():
                await trio.sleep(LOOK_EVERY_S)
            return
        raise DrillError(f"no key can be made {WELL_S:g} s after all was well again")

    async def revoke(self) -> str:
        """Make one, and revoke it. Returns: that key, which must open nothing from now on."""
        await self.make_until_done()
        key_id, key = self.made.popitem()
        answer = await self._server.delete(f"/v1/rbee/keys/{key_id}")
        if answer.status_code != 200:
            raise DrillError(f"a key to be revoked: status {answer.status_code}")
        return key

    async def check_list(self) -> None:
        """Raises: DrillError: the list has others than those that were made."""
        answer = await self._server.get("/v1/rbee/keys")
        keys = answer.raise_for_status().json()["keys"]
        listed = {each["id"] for each in keys if each["role"] == "viewer" and not each["revoked"]}
        if listed != set(self.made):
            lost, more = len(set(self.made) - listed), len(listed - set(self.made))
            raise DrillError(f"of the keys that were made {lost} are not listed, and {more} others")

    async def check_keys(self) -> None:
        """Raises: DrillError: the last key that was made opens nothing."""
        key = list(self.made.values())[-1]
        if (status := await door(self._server, key)) != 200:
            raise DrillError(f"a key that was made gets status {status}")

    def tell(self) -> None:
        refused = ", ".join(f"{count} {code}" for code, count in self.refused.items())
        self._scene.notes.append(f"{len(self.made)} keys made, refused: {refused or 'none'}")


async def door(server: Server, key: str) -> int:
    """The status that this key gets; "": that one without a key gets."""
    async with server.open_client(ASK_TIMEOUT_S, key) as client:
        answer = await client.get(f"{server.url}/v1/models")
    return answer.status_code


async def check_doors_closed(server: Server, *keys: str) -> None:
    """Raises: DrillError: one of these keys, or none at all, is let in."""
    for key in ("", *keys):
        if (status := await door(server, key)) not in (401, 429):
            raise DrillError(f"who must not come in gets status {status}")


async def _ordered(server: Server, order: dict[str, Any]) -> dict[str, Any]:
    """The new key, or the documented error in its place."""
    try:
        answer = await server.post("/v1/rbee/keys", order)
        document: dict[str, Any] = answer.json()
        code = "" if answer.status_code == 201 else document["error"]["code"]
    except (httpx2.HTTPError, LookupError, ValueError) as error:
        raise DrillError(f"a key to be made: {error!r}") from error
    if code and (answer.status_code != 503 or code not in REFUSALS):
        raise DrillError(f"a key to be made: status {answer.status_code}, {code!r}")
    return document
