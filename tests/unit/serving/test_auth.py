"""Authentication, roles, rate limits, exposure, and secrets that must not be logged."""

import base64
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.testclient import TestClient

from cv_factory.config.serving import ServingConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.application import Application
from cv_factory.serving.auth import api_keys, tokens
from cv_factory.serving.auth.access import check_exposure
from cv_factory.serving.auth.api_keys import (
    ApiKeyStore,
    add_key,
    hash_key,
    read_keys,
    revoke_key,
)
from cv_factory.serving.auth.rate_limit import RateLimiter
from cv_factory.serving.logging.json_lines import configure_event_logging
from tests.support.digits_service import (
    app_client,
    digit_png,
    digits_bundle,
    post_image,
    problem_kind,
)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def predict(client: httpx.Client, headers: Mapping[str, str]) -> httpx.Response:
    return post_image(client, digit_png(), headers=headers)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_only_valid_keys_are_accepted(key_file: Path) -> None:
    key = add_key(key_file, "ann", ["predict"], None)
    assert key not in key_file.read_text()
    with app_client(ApiKeyStore(key_file)) as client:
        assert predict(client, bearer(key)).status_code == 200
        assert predict(client, {"X-API-Key": key}).status_code == 200
        for headers in ({}, bearer("cvf_wrong"), {"Authorization": "Basic abc"}, bearer("")):
            response = predict(client, headers)
            assert (response.status_code, problem_kind(response)) == (401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == 200


def test_keys_added_and_revoked_at_the_same_time_are_all_stored(key_file: Path) -> None:
    names = [f"user{number}" for number in range(12)]
    add_key(key_file, "old", ["predict"], None)
    with ThreadPoolExecutor(13) as pool:
        revocation = pool.submit(revoke_key, key_file, "old")
        keys = list(pool.map(lambda name: add_key(key_file, name, ["predict"], None), names))
    revocation.result()
    store = ApiKeyStore(key_file)
    principals = [store.find(key) for key in keys]
    assert [principal and principal.name for principal in principals] == names
    assert [key.name for key in read_keys(key_file).keys if key.revoked] == ["old"]
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_keys_that_cannot_be_written_are_refused_and_not_printed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot write the API keys .*No such file.* its folder"):
        add_key(tmp_path / "missing" / "keys.json", "ann", ["predict"], None)


def test_a_running_service_rejects_a_revoked_key(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid, revoked = (add_key(key_file, name, ["predict"], None) for name in ("ann", "bob"))
    with app_client(ApiKeyStore(key_file)) as client:
        assert predict(client, bearer(revoked)).status_code == 200
        revoke_key(key_file, "bob")
        monkeypatch.setattr(api_keys, "_RELOAD_INTERVAL_S", 0.0)
        assert predict(client, bearer(revoked)).status_code == 401
        # A damaged file must neither lock everybody out nor let anybody in.
        key_file.write_text("{")
        assert predict(client, bearer(valid)).status_code == 200
        assert predict(client, bearer(revoked)).status_code == 401


def test_protected_pages_require_the_role_admin(key_file: Path) -> None:
    user = add_key(key_file, "ann", ["predict"], None)
    admin = add_key(key_file, "root", ["admin"], None)
    access = {"protect": ["metrics", "model_info"]}
    with app_client(ApiKeyStore(key_file), access=access) as client:
        for path in ("/metrics", "/model-info"):
            assert client.get(path).status_code == 401
            assert problem_kind(client.get(path, headers=bearer(user))) == "forbidden"
            assert client.get(path, headers=bearer(admin)).status_code == 200
        assert predict(client, bearer(admin)).status_code == 200


def test_the_error_of_an_invalid_key_file_repeats_no_key(key_file: Path) -> None:
    key_file.write_text('{"keys": [{"name": "ann", "sha256": "cvf_in-clear-by-mistake"}]}')
    with pytest.raises(ConfigError, match=r"keys\.0\.sha256") as caught:
        ApiKeyStore(key_file)
    assert "cvf_in" not in str(caught.value)
    with pytest.raises(ConfigError, match="no valid API key"):
        ApiKeyStore(text='{"keys": []}')


class TokenIssuer:
    """Identity provider that signs tokens and publishes its public key in a file."""

    def __init__(self, folder: Path) -> None:
        self.private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.private_key.public_key(), as_dict=True)
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [{**public, "kid": "one", "use": "sig"}]}))

    @property
    def access(self) -> dict[str, Any]:
        """Section ``access`` of the serving configuration."""
        return {"jwt": {"issuer": "us", "audience": "cv", "jwks": str(self.jwks)}}

    def token(self, **claims: Any) -> str:
        body = {"iss": "us", "aud": "cv", "sub": "carol", "exp": time.time() + 60,
                "roles": ["predict"], **claims}  # fmt: skip
        return jwt.encode(body, self.private_key, "RS256", headers={"kid": "one"})


def test_only_tokens_of_the_issuer_are_accepted(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path)
    body = {"iss": "us", "aud": "cv", "sub": "x", "exp": time.time() + 60, "roles": ["admin"]}
    forged = jwt.encode(body, "a secret of the attacker's own choice", headers={"kid": "one"})
    unsigned = jwt.encode(body, "", "none", headers={"kid": "one"})
    with app_client(access=issuer.access) as client:
        assert predict(client, bearer(issuer.token())).status_code == 200
        invalid = [
            issuer.token(iss="them"), issuer.token(aud="other"), issuer.token(exp=1),
            forged, unsigned, "a.b.c", "", issuer.token()[:-4] + "AAAA",
        ]  # fmt: skip
        for token in invalid:
            assert problem_kind(predict(client, bearer(token))) == "unauthorized"
        other_role = bearer(issuer.token(roles=["other"]))
        assert problem_kind(predict(client, other_role)) == "forbidden"


def test_a_token_that_its_key_does_not_fit_is_not_valid(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path)
    access = {"jwt": {**issuer.access["jwt"], "algorithms": ["RS256", "ES256", "EdDSA"]}}
    body = {"iss": "us", "aud": "cv", "sub": "x", "exp": time.time() + 60}
    curve, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    odd_tokens = [
        jwt.encode(body, curve, "ES256", headers={"kid": "one"}),
        jwt.encode(body, edwards, "EdDSA", headers={"kid": "one"}),
        issuer.token(exp="soon"),
        issuer.token(sub=3),
        issuer.token(nbf=[]),
        *map(token_of_header, ODD_HEADERS),
    ]
    with app_client(access=access) as client:
        assert predict(client, bearer(issuer.token())).status_code == 200
        for token in odd_tokens:
            response = predict(client, bearer(token))
            assert (response.status_code, problem_kind(response)) == (401, "unauthorized"), token
        response = predict(client, bearer(odd_tokens[0]))
        assert "its algorithm ES256 does not fit a key of RSA" in response.json()["detail"]


ODD_HEADERS = [
    b"[]", b"null", b"[" * 5000, b'{"alg": 1, "kid": "one"}', b'{"alg": ["RS256"], "kid": "one"}',
    b'{"kid": "one"}', b'{"alg": "RS256"}', b'{"alg": "RS256", "kid": ["one"]}',
    b'{"alg": "RS256", "kid": {}}', b'{"alg": "RS256", "kid": "one", "crit": 5}',
    b'{"alg": "RS256", "kid": "one", "b64": false}', b'{"alg": "\xff"}', b'{"alg": 1e999}',
]  # fmt: skip


def token_of_header(header: bytes) -> str:
    """Return a token with this header, whose payload and signature are of no issuer."""
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, b"{}", b"x"))
    return b".".join(parts).decode()


def test_a_missing_key_set_prevents_the_start_but_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = TokenIssuer(tmp_path)
    away = issuer.jwks.rename(tmp_path / "away.json")
    bundle = digits_bundle(access=issuer.access)
    keys = ApiKeyStore(text=json.dumps({"keys": [{"name": "a", "sha256": hash_key("cvf_a")}]}))
    with pytest.raises(ConfigError, match=r"access\.jwt\.jwks"):
        Application(bundle)
    app = Application(bundle, keys=keys, is_restart=True)
    client = TestClient(app)
    try:
        assert predict(client, bearer("cvf_a")).status_code == 200
        rejected = predict(client, bearer(issuer.token()))
        assert (rejected.status_code, problem_kind(rejected)) == (503, "issuer-unavailable")
        assert int(rejected.headers["retry-after"]) >= 1
        away.rename(issuer.jwks)
        monkeypatch.setattr(tokens, "MIN_FETCH_INTERVAL_S", 0.0)
        assert predict(client, bearer(issuer.token())).status_code == 200
        # The keys are used on while the issuer is away.
        issuer.jwks.unlink()
        monkeypatch.setattr(tokens, "_MAX_KEY_AGE_S", -1.0)
        assert predict(client, bearer(issuer.token())).status_code == 200
    finally:
        app.close()


def test_an_issuer_that_is_away_is_a_new_error_each_time(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path)
    issuer.jwks.unlink()
    config = ServingConfig.model_validate({"access": issuer.access}).access.jwt
    assert config is not None
    verifier = tokens.TokenVerifier(config, is_restart=True)
    errors = []
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            verifier.verify(issuer.token())
        errors.append(caught.value)
    assert errors[0] is not errors[1], "its traceback would grow, and hold the tokens"


@pytest.mark.parametrize(
    "content", [b"[]", b"5", b'{"keys": 5}', b'{"keys": [{"kty": "RSA"}]}', b"[" * 9999, b"\xff"]
)
def test_a_damaged_key_set_is_an_error_of_the_configuration(tmp_path: Path, content: bytes) -> None:
    issuer = TokenIssuer(tmp_path)
    issuer.jwks.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a readable JWK set"):
        Application(digits_bundle(access=issuer.access))


@pytest.mark.parametrize("url", ["https://[::1", "https://a:b", "http://127.0.0.1/jwks"])
def test_a_malformed_address_of_the_key_set_is_an_error_of_the_configuration(url: str) -> None:
    access = {"jwt": {"issuer": "us", "audience": "cv", "jwks": url}}
    with pytest.raises(ConfigError, match="URL"):
        Application(digits_bundle(access=access))


def test_a_key_is_limited_to_its_rate(key_file: Path) -> None:
    limited = add_key(key_file, "slow", ["predict"], 0.001)
    unlimited = add_key(key_file, "fast", ["predict"], None)
    with app_client(ApiKeyStore(key_file)) as client:
        assert predict(client, bearer(limited)).status_code == 200
        response = predict(client, bearer(limited))
        assert (response.status_code, problem_kind(response)) == (429, "too-many-requests")
        assert 1 <= int(response.headers["retry-after"]) <= 1000
        assert predict(client, bearer(unlimited)).status_code == 200


def test_addresses_are_limited_before_authentication(key_file: Path) -> None:
    add_key(key_file, "ann", ["predict"], None)
    rate = {"per_address": 0.001, "burst_seconds": 2000.0}
    with app_client(ApiKeyStore(key_file), rate=rate) as client:
        statuses = [predict(client, bearer("guess")).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]


def test_a_bucket_refills_at_its_rate_up_to_its_burst() -> None:
    now = 0.0
    limiter = RateLimiter(2.0, clock=lambda: now)
    assert [limiter.take("a", 5.0) for _ in range(10)] == [0.0] * 10
    assert limiter.take("a", 5.0) == pytest.approx(0.2)
    assert limiter.take("b", 5.0) == 0.0
    now = 0.4
    assert [limiter.take("a", 5.0) == 0.0 for _ in range(3)] == [True, True, False]
    now = 1000.0
    assert limiter.take("a", 5.0, n=10) == 0.0
    assert limiter.take("a", 5.0) > 0.0


def test_a_service_is_not_exposed_by_accident() -> None:
    default = ServingConfig()
    opened = ServingConfig.model_validate({"access": {"allow_open": True}})
    keys = ApiKeyStore(text=json.dumps({"keys": [{"name": "a", "sha256": "0" * 64}]}))
    assert "no API keys" in str(check_exposure(default, None, ["127.0.0.1", "::1"]))
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match="CV_FACTORY_API_KEYS_FILE"):
            check_exposure(default, None, ["127.0.0.1", host])
        assert check_exposure(default, keys, [host]) is None
        assert check_exposure(opened, None, [host]) is not None
        assert "SageMaker decides" in str(check_exposure(default, None, [host], "SageMaker"))


def test_no_secret_is_logged(key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = add_key(key_file, "ann", ["predict"], None)
    image = digit_png()
    configure_event_logging()
    with app_client(ApiKeyStore(key_file)) as client:
        post_image(client, image, headers={**bearer(key), "X-Request-ID": "order-66"})
        post_image(client, image, headers=bearer("cvf_stolen"))
        post_image(client, b"not an image", headers={**bearer(key), "X-Request-ID": "evil\tid"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[0] == "{"]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 401, 422]
    assert [line["key"] for line in requests] == ["ann", None, "ann"]
    assert requests[0]["request_id"] == "order-66"
    assert "evil" not in requests[2]["request_id"]
    text = json.dumps(lines)
    assert key not in text
    assert "cvf_stolen" not in text
    assert image.hex() not in text
