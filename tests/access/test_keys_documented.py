"""docs/keys.md is held to the table of rights, and the table to the routes."""

import re
from pathlib import Path

from rbee.supervisor.access.principal import Role
from rbee.supervisor.access.rights import LEAST_ROLES, OPEN_PATHS
from rbee.supervisor.api.routing import ByMethod
from tests.api.face import every_route

KEYS = (Path(__file__).parents[2] / "docs" / "keys.md").read_text("utf-8")


def test_the_documented_rights_are_the_tables() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", KEYS, re.MULTILINE))
    for role in Role:
        told = set(re.findall(r"`((?:GET|POST|DELETE) [^`]+)`", rows[role.value]))
        real = {
            f"{method} {path.replace(':path', '')}"
            for (method, path), least in LEAST_ROLES.items()
            if least is role
        }
        assert told == real


async def test_every_route_has_its_line_in_the_table_and_every_line_a_route() -> None:
    real = set()
    for route in every_route():
        assert isinstance(route.app, ByMethod), f"{route.path} goes past the table of rights"
        if route.path not in OPEN_PATHS:
            methods = set(route.app.allow.split(", ")) - {"OPTIONS", "HEAD"}
            real |= {(method, route.path) for method in methods}
    assert set(LEAST_ROLES) == real
