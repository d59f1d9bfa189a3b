"""Each client has a salt, for as long as the supervisor runs, and nobody can tell whose it is."""

from rbee.supervisor.access.cache_salts import SALT_BYTES, CacheSalts
from rbee.supervisor.access.principal import ANYBODY, Principal, Role
from rbee.wire import CACHE_SALT_BYTES_MAX


def test_a_client_has_one_salt_and_no_other_client_has_it() -> None:
    salts = CacheSalts()
    mine = salts.of(Principal("key:a", Role.USER))
    assert salts.of(Principal("key:a", Role.ADMIN, frozenset({"m"}))) == mine
    others = [salts.of(Principal(actor, Role.USER)) for actor in ("key:b", "jwt:a", "jwt:a/b")]
    assert len({mine, *others, salts.of(ANYBODY)}) == 5
    assert len(mine) == SALT_BYTES <= CACHE_SALT_BYTES_MAX


def test_tokens_of_one_subject_have_one_salt() -> None:
    salts = CacheSalts()
    first, second = (Principal("jwt:i/s", Role.USER, credential_id=f"jwt:{i}") for i in "12")
    assert salts.of(first) == salts.of(second)


def test_all_who_come_without_a_key_have_one_salt() -> None:
    salts = CacheSalts()
    assert salts.of(None) == salts.of(ANYBODY) != b""


def test_another_supervisor_has_other_salts() -> None:
    assert CacheSalts().of(ANYBODY) != CacheSalts().of(ANYBODY)
