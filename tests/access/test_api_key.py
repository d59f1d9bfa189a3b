"""The form of keys, their hashes, and the header that they come in."""

import re
import string

import pytest
from argon2.exceptions import VerificationError
from hypothesis import given
from hypothesis import strategies as st

from rbee.supervisor.access import hashing
from rbee.supervisor.access.api_key import fingerprint, id_of, is_key_id, new_key
from rbee.supervisor.access.authorization import (
    TOKEN_LETTERS_MAX,
    NoCredentialError,
    read_bearer,
)
from rbee.supervisor.access.hashing import NOBODYS_HASH, fits, hash_key, is_well_hashed

LETTERS = string.ascii_letters + string.digits


def test_a_new_key_has_its_id_in_it_and_is_another_each_time() -> None:
    keys = [new_key() for _ in range(200)]
    assert len({key.text for key in keys}) == len({key.id for key in keys}) == 200
    for key in keys:
        assert re.fullmatch(r"rbee_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}", key.text)
        assert key.text.split("_")[1] == key.id
        assert id_of(key.text) == key.id
        assert is_key_id(key.id)


def test_a_key_does_not_show_itself() -> None:
    key = new_key()
    assert key.text not in repr(key)
    assert key.text.split("_")[2] not in str(key)


@given(st.data())
def test_no_key_with_one_letter_changed_is_one(data: st.DataObject) -> None:
    text = new_key().text
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(LETTERS).filter(lambda each: each != text[place]))
    assert id_of(text[:place] + letter + text[place + 1 :]) is None


@given(st.text(max_size=100) | st.from_regex(r"rbee_[0-9A-Za-z]{0,9}_[0-9A-Za-z]*", fullmatch=True))
def test_any_text_is_a_key_or_none(text: str) -> None:
    found = id_of(text)
    assert found is None or text.startswith(f"rbee_{found}_")
    assert re.fullmatch("[0-9a-f]{6}", fingerprint(text))


def test_half_a_character_has_a_fingerprint_too() -> None:
    assert re.fullmatch("[0-9a-f]{6}", fingerprint("rbee_\ud800"))


@pytest.mark.parametrize("suffix", ["\n", " ", "=", "\x00"])
def test_nothing_may_stand_behind_a_key(suffix: str) -> None:
    assert id_of(new_key().text + suffix) is None


def test_a_key_fits_its_own_hash_alone() -> None:
    key, other = new_key(), new_key()
    hashed = hash_key(key.text)
    assert is_well_hashed(hashed)
    assert key.text not in hashed
    assert fits(key.text, hashed)
    assert not fits(other.text, hashed)
    assert not fits(key.text, NOBODYS_HASH)
    assert hash_key(key.text) != hashed, "each has a salt of its own"


@pytest.mark.parametrize(
    "hashed",
    ["", "$argon2id$", "$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA", "\u00fc",
     "$argon2id$v=19$m=4194304,t=9,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA", NOBODYS_HASH[:60]],
)  # fmt: skip
def test_what_is_no_hash_of_ours_fits_nothing_and_takes_no_other_work(hashed: str) -> None:
    assert not fits(new_key().text, hashed)
    assert not fits("\u00fc", hashed)


@pytest.mark.parametrize(
    "value",
    [
        "Bearer abc",
        "bearer abc",
        "BEARER abc",
        "bEaReR  abc",
        "Bearer abc=",
        "Bearer a.b-c_d~e+f/g==",
    ],
)
def test_a_bearer_token_is_read_whatever_the_case_of_its_scheme(value: str) -> None:
    assert read_bearer([value], []) == value.rsplit(maxsplit=1)[-1]


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "abc", "Basic abc", "Bearerabc", "Bearer\tabc", " Bearer abc",
     "Bearer abc ", "Bearer abc def", "Bearer abc, Bearer def", "Bearer =abc", "Bearer a=b",
     "Bearer token=abc", 'Bearer "abc"', "Bearer abc\n", "Bearer abc\x00", "Bearer \u00fc",
     "Bearer " + "a" * (TOKEN_LETTERS_MAX + 1)],
)  # fmt: skip
def test_what_is_no_bearer_token_is_malformed(value: str) -> None:
    with pytest.raises(NoCredentialError) as caught:
        read_bearer([value], [])
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "reason"),
    [
        ([], [], "missing"),
        (["Bearer abc", "Bearer abc"], [], "malformed"),
        (["Bearer abc"], ["abc"], "malformed"),
        ([], ["abc"], "malformed"),
        ([], [""], "malformed"),
    ],
)
def test_a_credential_is_given_once_and_in_one_way(
    authorization: list[str], x_api_key: list[str], reason: str
) -> None:
    with pytest.raises(NoCredentialError) as caught:
        read_bearer(authorization, x_api_key)
    assert caught.value.reason == reason


@given(st.lists(st.text(max_size=60), max_size=3), st.lists(st.text(max_size=9), max_size=1))
def test_any_headers_give_a_token_or_a_reason(authorization: list[str], others: list[str]) -> None:
    try:
        told = read_bearer(authorization, others)
    except NoCredentialError as error:
        told = error.reason
    assert told.isascii()
    assert told.isprintable()


def test_where_there_is_no_memory_nobody_is_said_to_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_memory(*_: object) -> bool:
        raise VerificationError("Memory allocation error")

    monkeypatch.setattr(hashing, "verify_secret", without_memory)
    with pytest.raises(MemoryError):
        fits(new_key().text, NOBODYS_HASH)
