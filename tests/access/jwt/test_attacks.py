"""A JWT that is forged, stretched or twisted opens nothing; and the reason is the right one."""

import contextlib
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.supervisor.access.jwt.bearers import Bearers
from rbee.supervisor.access.jwt.form import JWT_LETTERS_MAX, JwtRefusedError, Reason, read_header
from rbee.supervisor.access.jwt.key_set import KeySetError, parse_key_set
from rbee.supervisor.access.jwt.revoked import RevokedJwts
from rbee.supervisor.access.jwt.signatures import VerifyingKeys
from rbee.supervisor.access.principal import Principal
from tests.access.jwt.issuer import (
    EC_KEY,
    KEYS,
    NOW_S,
    OTHER_RSA_KEY,
    RSA_KEY,
    claims,
    config,
    jwk,
    key_set,
    part,
    sign,
)

CONFIG = config()
VERIFYING = VerifyingKeys(parse_key_set(key_set(), CONFIG.algorithms))


def bearers(**more: Any) -> Bearers:
    revoked = RevokedJwts(is_shared=False, may_be_blind=False, unix_clock=lambda: NOW_S)
    revoked.replace_own({"gone": NOW_S + 1_000})
    return Bearers(config(**more), revoked, lambda: NOW_S)


def verify(text: str, keys: VerifyingKeys = VERIFYING, **more: Any) -> Principal:
    return bearers(**more).verify(text, read_header(text), keys)


def refusal(text: str, **more: Any) -> Reason:
    with pytest.raises(JwtRefusedError) as caught:
        verify(text, **more)
    return caught.value.reason


def good(**more: Any) -> dict[str, Any]:
    return claims(NOW_S, **more)


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_good_jwt_of_each_algorithm_is_taken(algorithm: Any) -> None:
    principal = verify(sign(good(), algorithm))
    assert principal.role == "user"
    assert principal.actor.startswith("jwt:https://id.example.org/realms/gpu/")
    assert "ada" not in principal.actor


# --- the algorithm


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", ["", "AA"])
def test_alg_none_is_no_signature(algorithm: str, signature: str) -> None:
    text = f"{part({'alg': algorithm, 'kid': 'RS256'})}.{part(good())}.{signature}"
    assert refusal(text) in {Reason.MALFORMED, Reason.WRONG}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["pem", "der", "jwk", "empty"])
def test_a_public_key_is_no_secret(algorithm: str, form: str) -> None:
    public = RSA_KEY.public_key()
    secret = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(jwk(RSA_KEY)).encode(),
        "empty": b"",
    }[form]
    body = f"{part({'alg': algorithm, 'kid': 'RS256', 'typ': 'JWT'})}.{part(good())}"
    digest = hmac.digest(secret, body.encode(), f"sha{algorithm[2:]}")
    assert refusal(f"{body}.{part(digest)}") == Reason.WRONG


@pytest.mark.parametrize(
    "claimed", ["RS384", "RS512", "PS256", "ES256", "ES256K", "EdDSA", "rs256"]
)
def test_the_type_of_the_key_says_the_algorithm_not_the_jwt(claimed: str) -> None:
    _, payload, signature = sign(good(), "RS256").split(".")
    assert (
        refusal(f"{part({'alg': claimed, 'kid': 'RS256'})}.{payload}.{signature}") == Reason.WRONG
    )


def test_a_good_signature_of_another_algorithm_of_the_same_key_is_refused() -> None:
    assert refusal(sign(good(), "PS256", key=RSA_KEY, kid="RS256")) == Reason.WRONG  # type: ignore[arg-type]


def test_an_algorithm_that_the_operator_has_left_out_has_no_keys() -> None:
    keys = VerifyingKeys(parse_key_set(key_set(), ("RS256",)))
    with pytest.raises(JwtRefusedError) as caught:
        verify(sign(good(), "ES256"), keys)
    assert caught.value.reason == Reason.UNKNOWN


# --- the header


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("jku", "https://evil.example/keys"), ("x5u", "https://evil.example/cert"), ("x5c", ["AA"]),
        ("jwk", jwk(OTHER_RSA_KEY)), ("crit", ["exp"]), ("crit", []), ("b64", False), ("x5t", "AA"),
        ("zip", "DEF"), ("enc", "A256GCM"), ("cty", "JWT"), ("epk", {}), ("p2c", 10**9),
    ],
)  # fmt: skip
def test_a_header_that_asks_for_something_is_refused(member: str, value: object) -> None:
    header = {"alg": "RS256", "kid": "RS256", member: value}
    _, payload, signature = sign(good(), "RS256").split(".")
    assert refusal(f"{part(header)}.{payload}.{signature}") == Reason.MALFORMED


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null", "/dev/null", "' UNION SELECT 'key' --", "$(reboot)", "rs256",
        "RS256\x00", "RS256 ", "__class__", "https://evil.example", "\ud800",
    ],
)  # fmt: skip
def test_a_kid_is_only_looked_up(kid: str) -> None:
    assert refusal(sign(good(), "RS256", kid=kid)) == Reason.UNKNOWN


@pytest.mark.parametrize("kid", [None, 1, "", [], {}, ["RS256"], True, "x" * 257])
def test_a_kid_that_is_no_text_is_refused(kid: object) -> None:
    _, payload, signature = sign(good(), "RS256").split(".")
    header = part({"alg": "RS256", "kid": kid})
    assert refusal(f"{header}.{payload}.{signature}") == Reason.MALFORMED


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "JOSE", "", 1, None, ["JWT"]])
def test_a_jwt_for_another_end_is_refused(typ: object) -> None:
    header = part({"alg": "RS256", "kid": "RS256", "typ": typ})
    assert refusal(f"{header}.{part(good())}.AA") == Reason.MALFORMED


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_the_types_of_access_tokens_are_taken(typ: str) -> None:
    assert verify(sign(good(), typ=typ))


def test_members_that_stand_twice_are_refused() -> None:
    twice = b'{"alg":"RS256","kid":"RS256","alg":"none"}'
    assert refusal(f"{part(twice)}.{part(good())}.AA") == Reason.MALFORMED
    payload = json.dumps(good())[:-1].encode() + b',"roles":["admin"]}'
    assert refusal(sign(payload)) == Reason.MALFORMED


# --- the form


@pytest.mark.parametrize(
    "text",
    [
        "eyJ", "eyJ.", "eyJ..", "eyJ.eyJ", "eyJhbGciOiJSUzI1NiJ9.e30.", "eyJ.eyJ.eyJ.eyJ",
        "eyJ.eyJ.eyJ.eyJ.eyJ", "eyJ=.e30.AA", "eyJ+/.e30.AA", "eyJ. e30.AA", "eyJ.e30.AA\n",
        part([]) + ".e30.AA", part("eyJ") + ".e30.AA", part(b"\xff{") + ".e30.AA",
        part(b'{"alg":NaN}') + ".e30.AA", part(b"[" * 1500) + ".e30.AA", "eyJx.e30.AA",
        part("{}".encode("utf-16")) + ".e30.AA",
    ],
)  # fmt: skip
def test_what_is_not_three_parts_is_refused(text: str) -> None:
    assert refusal(text) == Reason.MALFORMED


def test_a_jwt_of_more_than_8_kib_is_refused_before_it_is_read() -> None:
    fits = sign(good(more="x" * 5_600))
    assert 7_500 < len(fits) <= JWT_LETTERS_MAX
    assert verify(fits)
    assert refusal(sign(good(more="x" * 6_100))) == Reason.MALFORMED


def test_signatures_that_are_changed_cut_or_empty_are_wrong() -> None:
    head, payload, signature = sign(good(), "ES256").split(".")
    zero = part(bytes(64))  # "psychic signatures": r = s = 0
    for each in (zero, signature[:-4], part(b"\1" * 64), signature[::-1][:84] + "AA"):
        assert refusal(f"{head}.{payload}.{each}") in {Reason.WRONG, Reason.MALFORMED}
    other = part({**good(), "roles": ["admin"]})
    assert refusal(f"{head}.{other}.{signature}") == Reason.WRONG


def test_the_signature_of_another_key_with_the_same_id_is_wrong() -> None:
    assert refusal(sign(good(), "RS256", key=OTHER_RSA_KEY)) == Reason.WRONG


def test_unused_bits_of_base64_make_no_second_form() -> None:
    text = sign(good(), "EdDSA")  # 64 bytes: the last letter has 4 bits that say nothing
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = last[last.index(text[-1]) ^ 1]
    assert refusal(text[:-1] + other) == Reason.MALFORMED


# --- what it claims


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "nbf", "iat", "jti", "sub"])
def test_each_registered_claim_is_needed(name: str) -> None:
    assert refusal(sign(good(**{name: None}))) == Reason.CLAIMS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iss", "https://evil.example"), ("iss", "https://id.example.org/realms/gpu/"), ("iss", 1),
        ("iss", ["https://id.example.org/realms/gpu"]), ("aud", "other"), ("aud", ["a", "b"]),
        ("aud", []), ("aud", ""), ("aud", {"rbee": 1}), ("aud", "rbee2"), ("aud", ["rbee", 1]),
        ("exp", str(NOW_S + 9)), ("exp", True), ("exp", 1e300), ("exp", 10**400), ("exp", -1),
        ("nbf", "0"), ("nbf", False), ("iat", [1]), ("jti", ""), ("jti", 5), ("jti", "a b"),
        ("jti", "a\n"), ("jti", "x" * 257), ("sub", ""), ("sub", 7), ("roles", []),
        ("roles", ["root"]), ("roles", {"admin": True}), ("roles", True), ("roles", ["ADMIN"]),
        ("roles", [["admin"]]), ("roles", None), ("exp", NOW_S + 90_000), ("\ud800", 1),
        ("jti", "\ud800"), ("iss", "\ud800"),
    ],
)  # fmt: skip
def test_claims_that_are_not_ours_are_refused(name: str, value: object) -> None:
    assert refusal(sign(good(**{name: value}))) == Reason.CLAIMS


MODELS = {"models_claim": "/rbee/models"}


@pytest.mark.parametrize(
    ("claim", "models"),
    [
        (["one", "two"], {"one", "two"}), ("one two", {"one", "two"}), ("*", set()),
        (["one", "*"], set()), ([f"m{number}" for number in range(256)], None),
    ],
)  # fmt: skip
def test_a_jwt_names_the_models_that_may_be_asked_for(claim: Any, models: set[str] | None) -> None:
    taken = verify(sign(good(rbee={"models": claim})), **MODELS).models
    assert taken == (set(claim) if models is None else models)


@pytest.mark.parametrize(
    "claim",
    [None, [], "", "  ", {}, {"one": True}, 1, [1], ["one", 1], ["one", None], ["../one"], "a/../b",
     ["one", ""], [f"m{number}" for number in range(257)]],
)  # fmt: skip
def test_a_jwt_that_names_no_models_may_ask_for_none(claim: object) -> None:
    assert refusal(sign(good(rbee={"models": claim})), **MODELS) == Reason.CLAIMS
    assert refusal(sign(good()), **MODELS) == Reason.CLAIMS
    assert refusal(sign(good(rbee=claim)), **MODELS) == Reason.CLAIMS


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"exp": NOW_S - 31}, Reason.EXPIRED), ({"exp": NOW_S - 30}, Reason.EXPIRED),
        ({"exp": NOW_S - 29}, None), ({"nbf": NOW_S + 30}, None), ({"iat": NOW_S + 30}, None),
        ({"nbf": NOW_S + 31}, Reason.NOT_YET_VALID), ({"iat": NOW_S + 31}, Reason.NOT_YET_VALID),
        ({"exp": NOW_S + 0.5, "nbf": NOW_S - 0.5}, None), ({"exp": 0}, Reason.EXPIRED),
    ],
)  # fmt: skip
def test_times_are_held_to_the_second(times: dict[str, Any], reason: Reason | None) -> None:
    text = sign(good(**times))
    if reason is None:
        assert verify(text)
    else:
        assert refusal(text) == reason


def test_what_was_revoked_is_refused() -> None:
    assert refusal(sign(good(jti="gone"))) == Reason.REVOKED


def test_no_refusal_shows_a_piece_of_the_jwt() -> None:
    canary = "canary-4711"
    texts = [
        sign(good(iss=canary)),
        sign(good(aud=canary)),
        sign(good(), kid=canary),
        sign(good(jti=canary + " ")),
        sign(good(roles=[canary])),
        sign(good(**{canary: 1}, exp=canary)),
        f"{part({canary: 1})}.{canary}.{canary}",
    ]
    for text in texts:
        with pytest.raises(JwtRefusedError) as caught:
            verify(text)
        assert canary not in caught.value.problem


# --- any bytes whatever


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=200).map(lambda t: "eyJ" + t))
def test_any_text_is_refused_in_our_words(text: str) -> None:
    with pytest.raises(JwtRefusedError):
        read_header(text)


WORDS = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.sampled_from(["kty", "kid", "use", "alg", "crv", "n", "e", "x", "y"])
NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "jti", "sub", "roles"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
def test_any_claims_are_taken_or_refused_in_our_words(odd: dict[str, Any]) -> None:
    text = sign(json.dumps({**good(), **odd}).encode(), key=EC_KEY)
    with contextlib.suppress(JwtRefusedError):
        verify(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_key_set_or_an_error(raw: bytes) -> None:
    with pytest.raises(KeySetError):
        parse_key_set(raw, CONFIG.algorithms)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["kty", "kid", "use", "alg", "crv", "n", "e", "x", "y"]), JSON)
)
def test_any_members_are_a_key_or_left_out(members: dict[str, Any]) -> None:
    ours = jwk(EC_KEY, kid="ours")
    parsed = parse_key_set(key_set(ours, members), CONFIG.algorithms)
    assert "ours" in parsed.keys


def test_a_jwt_is_remembered_by_a_digest_that_only_this_process_can_make() -> None:
    text = sign(good())
    digests = {bearers()._digest(text), bearers()._digest(text)}
    assert len(digests) == 2
    assert hashlib.sha256(text.encode()).digest() not in digests
