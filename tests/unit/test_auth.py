"""Whom the guard lets pass."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from helpers.tokens import SAMPLE_KEY, SAMPLE_TOKEN, Issuer

from ccms_server.auth import CACHED_TOKENS_MAX, Access, Guard
from ccms_server.config import AuthConfig, BasicUser
from ccms_server.errors import PermissionDeniedError, UnauthenticatedError
from ccms_server.tokens import CLOCK_LEEWAY_SECONDS, TOKEN_BYTES_MAX, TokenVerifier

NOW = 1_700_000_000
ISSUER = Issuer()
USERS = AuthConfig(
    basic=(BasicUser(username="collector", password="s3cret"), BasicUser(username="zoë", password="p:w"))
)


class Clock:
    def __init__(self):
        self.now = float(NOW)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guard(clock):
    return Guard(ISSUER.public_key, AuthConfig(), clock=clock)


@pytest.fixture
def verified(monkeypatch):
    """The tokens whose signature was checked."""
    seen = []
    verify = TokenVerifier.verify

    def verify_and_tell(self, text):
        seen.append(text)
        return verify(self, text)

    monkeypatch.setattr(TokenVerifier, "verify", verify_and_tell)
    return seen


def bearer(**claims):
    return f"Bearer {ISSUER.token(**claims)}"


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def forged(header, payload=b"{}", signature=b""):
    parts = (header if isinstance(header, bytes) else json.dumps(header).encode(), payload, signature)
    return "Bearer " + ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("authorization", [None, "", "Bearer garbage", "nonsense"])
def test_without_a_key_everything_passes(authorization, access):
    Guard("", USERS, clock=Clock()).check(authorization, access)


@pytest.mark.parametrize("access", Access)
def test_the_sample_token_of_the_predecessor_passes_everywhere(access):
    Guard(SAMPLE_KEY, AuthConfig(), clock=Clock()).check(f"Bearer {SAMPLE_TOKEN}", access)


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}", " Bearer {} "])
def test_the_scheme_is_told_by_its_letters(guard, form):
    guard.check(form.format(ISSUER.token()), Access.READ)


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "authentication is required"),
        ("", "authentication is required"),
        ("Bearer", "authentication is required"),
        ("Bearer ", "authentication is required"),
        ("Digest abc", "authentication is required"),
        (ISSUER.token(), "authentication is required"),  # the scheme is missing
        (basic("user", "pw"), "authentication is required"),  # no users are configured
        ("Bearer garbage", "no JWT"),
        ("Bearer a.b", "no JWT"),
        ("Bearer a.b.c", "no JWT"),
        ("Bearer .. ..", "no JWT"),
        ("Bearer t\u00f6ken", "beyond ASCII"),
        ("Bearer t\udcffken", "beyond ASCII"),
        (f"Bearer {SAMPLE_TOKEN}", "does not fit `jwt-public-key`"),
        (f"Bearer {Issuer().token(exp=NOW + 60)}", "does not fit `jwt-public-key`"),
        (f"Bearer {ISSUER.token()[:-4]}AAAA", "does not fit `jwt-public-key`"),
        (f"Bearer {ISSUER.token().rpartition('.')[0]}.", "does not fit `jwt-public-key`"),
        (forged({"alg": "none", "typ": "JWT"}), "not signed with EdDSA"),
        (forged({"alg": "None"}), "not signed with EdDSA"),
        (forged({"alg": "eddsa"}), "not signed with EdDSA"),
        (forged({"alg": ["EdDSA"]}), "no JWT|not signed with EdDSA"),
        (forged({"typ": "JWT"}), "not signed with EdDSA"),
        (forged({"alg": "HS256"}, signature=b"test"), "not signed with EdDSA"),
        (forged(["EdDSA"]), "no JWT"),
        (forged(b"[" * 2000), "no JWT"),
        (forged(b"1" * 2900), "no JWT"),
        (forged({"alg": "EdDSA", "crit": ["exp"]}), "no JWT"),
        (forged({"alg": "EdDSA", "b64": False, "crit": ["b64"]}, payload=b""), "no JWT"),
        (forged({"alg": "EdDSA", "jwk": {"kty": "OKP"}, "jku": "http://localhost/"}), "does not fit `jwt-public-key`"),
        (f"Bearer {'a' * (TOKEN_BYTES_MAX + 1)}", "longer than 4,096 bytes"),
    ],
)
def test_who_does_not_say_credibly_who_they_are_is_refused(guard, authorization, message, access):
    with pytest.raises(UnauthenticatedError, match=message) as refused:
        guard.check(authorization, access)
    assert refused.value.schemes == ("Bearer",)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("key", [ISSUER.public_key, base64.b64decode(ISSUER.public_key)], ids=["base64", "raw"])
def test_the_public_key_is_no_secret_to_sign_with(guard, key):
    with pytest.raises(UnauthenticatedError, match="not signed with EdDSA"):
        guard.check(f"Bearer {jwt.encode({'user': 'admin'}, key, 'HS256')}", Access.READ)


def test_other_signatures_are_refused(guard):
    token = jwt.encode({"user": "admin"}, generate_private_key(SECP256R1()), "ES256")
    with pytest.raises(UnauthenticatedError, match="not signed with EdDSA"):
        guard.check(f"Bearer {token}", Access.READ)


def test_a_message_never_repeats_the_token(guard):
    for token in ("garbage-secret", ISSUER.token(exp=1, user="secret"), Issuer().token(user="secret")):
        with pytest.raises(UnauthenticatedError) as refused:
            guard.check(f"Bearer {token}", Access.READ)
        assert not any(part in str(refused.value) for part in ("secret", *token.split(".")))


def test_a_token_ends_in_the_very_second_it_says(guard, clock):
    authorization = bearer(exp=NOW + 10)
    clock.now = NOW + 9.999
    guard.check(authorization, Access.READ)
    clock.now = NOW + 10
    with pytest.raises(UnauthenticatedError, match=r"expired 0 s ago; get a new one"):
        guard.check(authorization, Access.READ)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_begins_when_it_says_or_a_moment_earlier(guard, clock, claim):
    authorization = bearer(**{claim: NOW + 1000})
    clock.now = NOW + 1000 - CLOCK_LEEWAY_SECONDS - 1
    for _ in range(2):
        with pytest.raises(UnauthenticatedError, match="is valid in 61 s only"):
            guard.check(authorization, Access.READ)
    clock.now += 1
    guard.check(authorization, Access.READ)


def test_the_later_of_two_beginnings_counts(guard):
    with pytest.raises(UnauthenticatedError, match="is valid in 500 s only"):
        guard.check(bearer(nbf=NOW + 500, iat=NOW), Access.READ)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["1900000000", "", None, True, [], {}, float("nan"), float("inf"), -float("inf")])
def test_times_that_are_no_numbers_are_refused(guard, claim, value):
    with pytest.raises(UnauthenticatedError, match="claims cannot be read"):
        guard.check(f"Bearer {signed(json.dumps({claim: value}))}", Access.READ)


@pytest.mark.parametrize(
    "payload", ["", "[]", "1", "{", '{"exp":1e999}', '{"roles":' + "[" * 1200 + "]" * 1200 + "}", b"\xff"]
)
def test_claims_that_are_no_object_are_refused(guard, payload):
    with pytest.raises(UnauthenticatedError, match="claims cannot be read"):
        guard.check(f"Bearer {signed(payload)}", Access.READ)


def signed(payload):
    """Signs any payload."""
    text = payload.encode() if isinstance(payload, str) else payload
    return jwt.PyJWS().encode(text, ISSUER._key, "EdDSA")


@pytest.mark.parametrize(
    "times", [{"exp": NOW + 0.5}, {"exp": NOW + 60, "nbf": NOW, "iat": NOW - 5.5}, {"iat": -1}, {}]
)
def test_times_may_have_fractions_or_be_absent(guard, times):
    guard.check(bearer(**times), Access.READ)


@pytest.mark.parametrize(
    "claims", [{"aud": "x", "iss": "y"}, {"sub": 5}, {"jti": 7}, {"user": None, "more": {"a": [1]}}]
)
def test_other_claims_do_not_matter(guard, claims):
    guard.check(bearer(**claims), Access.ADMIN)


@pytest.mark.parametrize("access", [Access.READ, Access.WRITE])
@pytest.mark.parametrize("roles", [[], ["ROLE_USER"], "ROLE_ADMIN", None, {"ROLE_ADMIN": 1}, [1, None]])
def test_any_roles_may_read_and_write(guard, roles, access):
    guard.check(bearer(roles=roles), access)


@pytest.mark.parametrize("roles", [["ROLE_ADMIN"], ["ROLE_API"], ["ROLE_USER", "ROLE_API", 1]])
def test_these_roles_may_free_and_dump(guard, roles):
    guard.check(bearer(roles=roles), Access.ADMIN)


@pytest.mark.parametrize(
    "roles",
    [[], ["ROLE_USER"], ["role_admin"], [" ROLE_ADMIN"], [["ROLE_ADMIN"]], "ROLE_ADMIN", None, {"ROLE_ADMIN": 1}],
)
def test_other_roles_may_not_free_and_dump(guard, roles):
    for _ in range(2):
        with pytest.raises(PermissionDeniedError, match=r"include none of ROLE_ADMIN, ROLE_API.*`auth.enforce-roles`"):
            guard.check(bearer(roles=roles), Access.ADMIN)


def test_roles_count_only_when_enforced():
    guard = Guard(ISSUER.public_key, AuthConfig(enforce_roles=False), clock=Clock())
    guard.check(bearer(roles=["ROLE_USER"]), Access.ADMIN)


@pytest.mark.parametrize(("user", "password"), [("collector", "s3cret"), ("zoë", "p:w")])
def test_users_with_a_password_may_write_only(user, password):
    guard = Guard(ISSUER.public_key, USERS, clock=Clock())
    guard.check(basic(user, password), Access.WRITE)
    guard.check(basic(user, password).replace("Basic", "basic"), Access.WRITE)
    for access in (Access.READ, Access.ADMIN):
        with pytest.raises(PermissionDeniedError, match="may write only; use a token"):
            guard.check(basic(user, password), access)


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (basic("collector", "s3creT"), "user or password is wrong"),
        (basic("collector", ""), "user or password is wrong"),
        (basic("", "s3cret"), "user or password is wrong"),
        (basic("collector", "p:w"), "user or password is wrong"),
        (basic("zoe", "p:w"), "user or password is wrong"),
        ("Basic " + base64.b64encode(b"collector").decode(), "user or password is wrong"),
        ("Basic", "user or password is wrong"),
        ("Basic !", "not base64"),
        ("Basic \u00fc", "not base64"),
        (None, "authentication is required"),
    ],
)
def test_a_wrong_user_or_password_is_refused(authorization, message):
    guard = Guard(ISSUER.public_key, USERS, clock=Clock())
    with pytest.raises(UnauthenticatedError, match=message) as refused:
        guard.check(authorization, Access.WRITE)
    assert refused.value.schemes == ("Bearer", "Basic")
    with pytest.raises(UnauthenticatedError, match=message) as refused:
        guard.check(authorization, Access.READ)
    assert refused.value.schemes == ("Bearer",)


def test_a_signature_is_checked_once(guard, verified):
    authorization = bearer(exp=NOW + 60)
    for _ in range(3):
        guard.check(authorization, Access.READ)
    assert len(verified) == 1


def test_what_is_refused_is_not_remembered(guard, verified):
    for authorization in ("Bearer garbage", bearer(exp=NOW - 1), bearer(nbf=NOW + 100)):
        for _ in range(2):
            with pytest.raises(UnauthenticatedError):
                guard.check(authorization, Access.READ)
    assert len(verified) == 6


def test_a_token_that_was_good_is_refused_when_the_clock_is_set_back(guard, clock):
    authorization = bearer(iat=NOW)
    guard.check(authorization, Access.READ)
    clock.now = NOW - 1000
    with pytest.raises(UnauthenticatedError, match="compare the clocks"):
        guard.check(authorization, Access.READ)


def test_the_token_that_was_used_least_recently_makes_room(guard, verified):
    tokens = [bearer(number=number) for number in range(CACHED_TOKENS_MAX + 1)]
    for token in tokens[:-1]:
        guard.check(token, Access.READ)
    guard.check(tokens[0], Access.READ)
    guard.check(tokens[-1], Access.READ)
    verified.clear()
    guard.check(tokens[0], Access.READ)
    assert verified == []
    guard.check(tokens[1], Access.READ)
    assert verified == [tokens[1].removeprefix("Bearer ")]
    assert len(guard._tokens) == CACHED_TOKENS_MAX


def test_new_keys_roles_and_users_count_at_once(guard):
    token, other = bearer(roles=["ROLE_USER"]), Issuer()
    guard.check(token, Access.READ)
    guard.reconfigure(other.public_key, AuthConfig(enforce_roles=False, basic=USERS.basic))
    with pytest.raises(UnauthenticatedError, match="does not fit"):
        guard.check(token, Access.READ)
    guard.check(f"Bearer {other.token(roles=[])}", Access.ADMIN)
    guard.check(basic("collector", "s3cret"), Access.WRITE)
    guard.reconfigure("", AuthConfig())
    guard.check(None, Access.ADMIN)
