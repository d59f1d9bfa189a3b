"""The whole face on a port of this machine, with keys before it: with the lane or without."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from rbee.config import ServerConfig
from rbee.supervisor.access.api_key import NewKey, new_key
from rbee.supervisor.access.keeper import Keeper
from rbee.supervisor.access.throttle import ThrottleLimits
from tests.access.keys import Stand
from tests.api.face import LogLines
from tests.api.served import Answer, Served, serve_face
from tests.http_server.harness import Answer as Told

UNTHROTTLED = ThrottleLimits(10**6, 1.0, 10**6, 1.0)


@dataclass
class Keyed:
    """A server that asks for keys."""

    served: Served
    stand: Stand
    keeper: Keeper

    async def key(self, role: str = "user", **more: Any) -> NewKey:
        """Make a key, and have the server know it."""
        key = new_key()
        await self.keeper.add(self.stand.ring.row(key, role=role, **more))
        return key

    async def ask(
        self,
        method: str,
        path: str,
        key: NewKey | str | None = None,
        body: object = None,
        **headers: str,
    ) -> Told:
        """Make one request on a connection of its own."""
        async with await self.served.connect() as client:
            await client.send(request(method, path, key, body, connection="close", **headers))
            if method == "HEAD":
                return Told(*await client.read_head(), b"", [])
            return await client.read_answer()

    def end_lapsed(self) -> None:
        self.served.face.open_requests.end_those_of(self.stand.access.lapsed)


def request(
    method: str, path: str, key: NewKey | str | None = None, body: object = None, **headers: str
) -> bytes:
    """One request, as bytes. A key as text stands in its header as it is."""
    raw = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(raw)}"]
    if key is not None:
        lines.append(f"Authorization: {key if isinstance(key, str) else f'Bearer {key.text}'}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + raw


@asynccontextmanager
async def serve_keyed(
    folder: Path,
    answer: Answer | None = None,
    *,
    has_lane: bool = True,
    throttle_limits: ThrottleLimits = UNTHROTTLED,
    config: ServerConfig | None = None,
    **limits: Any,
) -> AsyncIterator[Keyed]:
    """Serve; the first key makes it ask for one."""
    stand = Stand(throttle_limits)
    keeper = Keeper(folder / "rbee.db", stand.keyring, LogLines(), stand.audit)
    keeper.open()
    surroundings = {"access": stand.access, "keys": keeper, "audit": stand.audit}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand.verifier.run)
        async with serve_face(
            answer, has_lane=has_lane, config=config, surroundings=surroundings, **limits
        ) as served:
            yield Keyed(served, stand, keeper)
        nursery.cancel_scope.cancel(reason="the test is over")
    keeper.close()
