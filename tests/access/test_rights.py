"""What the table of rights says of one call, and what a refusal tells."""

import pytest

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.access.principal import Principal, Role
from rbee.supervisor.access.rights import LEAST_ROLES, OPEN_PATHS, check_right, least_role

KEYS = "/v1/rbee/keys"


def refusal(principal: Principal | None, method: str, path: str) -> str:
    with pytest.raises(RequestError) as caught:
        check_right(principal, method, path)
    assert caught.value.code is ErrorCode.PERMISSION_DENIED
    return caught.value.message


def of(role: Role) -> Principal:
    return Principal("key:abc", role)


def test_a_refusal_names_the_role_that_would_do() -> None:
    assert refusal(of(Role.OPERATOR), "GET", KEYS).endswith("which takes the role admin")
    check_right(of(Role.ADMIN), "GET", KEYS)


def test_what_is_not_in_the_table_is_for_no_role() -> None:
    for method, path in (("PUT", KEYS), ("GET", "/v1/rbee/secrets"), ("get", KEYS)):
        assert least_role(method, path) is None
        assert refusal(of(Role.ADMIN), method, path).endswith("which no role has")


def test_nobody_may_what_somebody_may() -> None:
    for method, path in LEAST_ROLES:
        assert "takes the role" in refusal(None, method, path)
    for path in OPEN_PATHS:
        check_right(None, "GET", path)


def test_head_is_as_get_and_methods_may_be_asked_for_by_all_that_may_read() -> None:
    assert least_role("HEAD", KEYS) is Role.ADMIN
    assert least_role("HEAD", "/v1/chat/completions") is None
    for path in (KEYS, "/v1/models"):
        check_right(of(Role.VIEWER), "OPTIONS", path)
