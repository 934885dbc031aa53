"""Who is let in, how much of what, and that nothing secret is written down."""

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from PIL import Image

from cv_factory.config.serving import ServingConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.application import Application, create_app
from cv_factory.serving.auth.access import check_exposure
from cv_factory.serving.auth.api_keys import ApiKeyStore, add_key, revoke_key
from cv_factory.serving.auth.rate_limit import RateLimiter
from cv_factory.serving.batcher import MicroBatcher, QueueFullError
from tests.support.digits_service import digit, digits_bundle, kind, post, served
from tests.support.images import encode


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_opens_and_nothing_else_does(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "ann", ["predict"], None)
    assert key not in file.read_text()
    with served(ApiKeyStore(file)) as client:
        assert post(client, digit(), headers=bearer(key)).status_code == 200
        assert post(client, digit(), headers={"X-API-Key": key}).status_code == 200
        for headers in ({}, bearer("cvf_wrong"), {"Authorization": "Basic abc"}, bearer("")):
            refused = post(client, digit(), headers=headers)
            assert (refused.status_code, kind(refused)) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == 200


def test_a_revoked_key_is_refused_by_the_running_service(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    kept, lost = (add_key(file, name, ["predict"], None) for name in ("ann", "bob"))
    with served(ApiKeyStore(file)) as client:
        assert post(client, digit(), headers=bearer(lost)).status_code == 200
        revoke_key(file, "bob")
        deadline = time.monotonic() + 10
        while post(client, digit(), headers=bearer(lost)).status_code == 200:
            assert time.monotonic() < deadline
        # A damaged file must not lock everybody out, nor let anybody in.
        file.write_text("{")
        assert post(client, digit(), headers=bearer(kept)).status_code == 200
        assert post(client, digit(), headers=bearer(lost)).status_code == 401


def test_protected_pages_ask_for_the_role_admin(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    user = add_key(file, "ann", ["predict"], None)
    admin = add_key(file, "root", ["admin"], None)
    with served(ApiKeyStore(file), access={"protect": ["metrics", "model_info"]}) as client:
        for path in ("/metrics", "/model-info"):
            assert client.get(path).status_code == 401
            assert kind(client.get(path, headers=bearer(user))) == "forbidden"
            assert client.get(path, headers=bearer(admin)).status_code == 200
        assert post(client, digit(), headers=bearer(admin)).status_code == 200


def test_keys_that_cannot_be_read_are_an_error_that_repeats_none_of_them(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"keys": [{"name": "ann", "sha256": "cvf_in-clear-by-mistake"}]}')
    with pytest.raises(ConfigError, match=r"keys\.0\.sha256") as caught:
        ApiKeyStore(file)
    assert "cvf_in" not in str(caught.value)
    with pytest.raises(ConfigError, match="nobody could ask"):
        ApiKeyStore(text='{"keys": []}')


class Issuer:
    """Signs tokens as an identity provider would, and publishes its public key in a file."""

    def __init__(self, folder: Path) -> None:
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [{**public, "kid": "one", "use": "sig"}]}))

    @property
    def access(self) -> dict[str, Any]:
        """What the service is configured with."""
        return {"jwt": {"issuer": "us", "audience": "cv", "jwks": str(self.jwks)}}

    def token(self, **claims: Any) -> str:
        body = {"iss": "us", "aud": "cv", "sub": "carol", "exp": time.time() + 60,
                "roles": ["predict"], **claims}  # fmt: skip
        return jwt.encode(body, self.private, "RS256", headers={"kid": "one"})


def test_tokens_of_the_issuer_are_accepted_and_no_others(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    body = {"iss": "us", "aud": "cv", "sub": "x", "exp": time.time() + 60, "roles": ["admin"]}
    forged = jwt.encode(body, "a secret of the attacker's own choice", headers={"kid": "one"})
    unsigned = jwt.encode(body, None, "none", headers={"kid": "one"})
    with served(access=issuer.access) as client:
        assert post(client, digit(), headers=bearer(issuer.token())).status_code == 200
        refused = [
            issuer.token(iss="them"), issuer.token(aud="other"), issuer.token(exp=1),
            forged, unsigned, "a.b.c", "", issuer.token()[:-4] + "AAAA",
        ]  # fmt: skip
        for token in refused:
            assert kind(post(client, digit(), headers=bearer(token))) == "unauthorized"
        roles = issuer.token(roles=["other"])
        assert kind(post(client, digit(), headers=bearer(roles))) == "forbidden"


def test_a_key_set_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    access = {"jwt": {"issuer": "us", "audience": "cv", "jwks": str(tmp_path / "none.json")}}
    with pytest.raises(ConfigError, match=r"access\.jwt\.jwks"):
        create_app(digits_bundle(access=access))


def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    slow = add_key(file, "slow", ["predict"], 0.5)
    fast = add_key(file, "fast", ["predict"], None)
    with served(ApiKeyStore(file)) as client:
        assert post(client, digit(), headers=bearer(slow)).status_code == 200
        refused = post(client, digit(), headers=bearer(slow))
        assert (refused.status_code, kind(refused)) == (429, "too-many-requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert post(client, digit(), headers=bearer(fast)).status_code == 200


def test_addresses_have_a_limit_before_keys_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "ann", ["predict"], None)
    rate = {"per_address": 0.5, "burst_seconds": 4.0}
    with served(ApiKeyStore(file), rate=rate) as client:
        statuses = [post(client, digit(), headers=bearer("guess")).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]


def test_a_bucket_fills_at_its_rate_and_holds_no_more_than_its_burst() -> None:
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


def test_a_service_is_not_opened_to_others_by_accident() -> None:
    closed, told = ServingConfig(), ServingConfig.model_validate({"access": {"allow_open": True}})
    keys = ApiKeyStore(text=json.dumps({"keys": [{"name": "a", "sha256": "0" * 64}]}))
    assert "no API keys" in str(check_exposure(closed, None, ["127.0.0.1", "::1"]))
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match="CV_FACTORY_API_KEYS_FILE"):
            check_exposure(closed, None, ["127.0.0.1", host])
        assert check_exposure(closed, keys, [host]) is None
        assert check_exposure(told, None, [host]) is not None
        assert "SageMaker decides" in str(check_exposure(closed, None, [host], "SageMaker"))


async def chunks(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def never_ending() -> AsyncIterator[bytes]:
    yield b"\x89PNG"
    await asyncio.Event().wait()


async def send(app: Application, content: Any, **headers: str) -> httpx.Response:
    """Send one request to an application in this process, bodies chunk by chunk."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        named = {"Content-Type": "image/png", **headers}
        return await client.post("/predict", content=content, headers=named)


def test_large_bodies_are_refused_declared_or_not() -> None:
    app = create_app(digits_bundle(limits={"max_body_bytes": 2000}))
    declared = asyncio.run(send(app, b"x" * 2001))
    streamed = asyncio.run(send(app, chunks(b"x" * 5000)))
    fitting = asyncio.run(send(app, chunks(digit())))
    app.close()
    for response in (declared, streamed):
        assert (response.status_code, kind(response)) == (413, "body-too-large")
        assert response.headers["connection"] == "close"
    assert fitting.status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    app = create_app(digits_bundle(limits={"body_seconds": 0.1}))
    response = asyncio.run(send(app, never_ending()))
    app.close()
    assert (response.status_code, kind(response)) == (408, "too-slow")


def test_more_images_than_allowed_are_refused() -> None:
    files = [("images", ("x.png", digit()))] * 3
    with served(limits={"max_images": 2}) as client:
        response = client.post("/predict", files=files)
    assert (response.status_code, kind(response)) == (413, "too-many-images")


def test_what_does_not_fit_into_the_queue_is_sent_away_and_the_rest_answered() -> None:
    app = create_app(digits_bundle(batching={"max_batch": 2, "queue_size": 4}))

    async def flood() -> list[httpx.Response]:
        return await asyncio.gather(*(send(app, digit(n % 10)) for n in range(60)))

    responses = asyncio.run(flood())
    app.close()
    statuses = [response.status_code for response in responses]
    assert set(statuses) == {200, 503}
    for response in responses:
        if response.status_code == 503:
            assert kind(response) == "overloaded"
            assert response.headers["retry-after"] == "1"


def test_no_more_requests_at_a_time_than_allowed() -> None:
    app = create_app(digits_bundle(limits={"max_requests": 2, "body_seconds": 0.5}))

    async def crowd() -> list[httpx.Response]:
        slow = [asyncio.create_task(send(app, never_ending())) for _ in range(2)]
        await asyncio.sleep(0.1)
        return [await send(app, digit()), *(await asyncio.gather(*slow)), await send(app, digit())]

    statuses = [response.status_code for response in asyncio.run(crowd())]
    app.close()
    assert statuses == [503, 408, 408, 200]


def test_who_waits_for_a_refusal_takes_nobodys_place_and_few_are_kept_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cv_factory.serving.application._SECONDS_BEFORE_REFUSAL", 10.0)
    app = create_app(digits_bundle(batching={"queue_size": 1}, limits={"max_requests": 1}))
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
    too_many = 2 * (part + digit() + b"\r\n") + b"--b--\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=b"}

    async def ask() -> list[int]:
        waits = asyncio.create_task(send(app, too_many, **form))
        while not app._refusing:
            await asyncio.sleep(0.001)
        answers = [await send(app, digit()), await send(app, too_many, **form)]
        assert waits.cancel(), "it was sent away already"
        return [answer.status_code for answer in answers]

    assert asyncio.run(asyncio.wait_for(ask(), 60)) == [200, 503]
    app.close()


@pytest.mark.parametrize("batching", [{"runs": 1}, {"threads": 2, "runs": 2}, {"max_batch": 3}])
def test_an_image_is_answered_alike_alone_and_among_any_others(batching: dict[str, int]) -> None:
    app = create_app(digits_bundle(batching=batching))
    order = random.Random(0)

    async def together(numbers: list[int]) -> list[httpx.Response]:
        return await asyncio.gather(*(send(app, digit(n)) for n in numbers))

    def said(response: httpx.Response) -> list[Any]:
        [prediction] = response.json()["predictions"]
        # As text: the order of the classes is part of the answer.
        return [prediction["label"], json.dumps(prediction["probabilities"])]

    alone = [said(asyncio.run(send(app, digit(n)))) for n in range(12)]
    for _ in range(12):
        numbers = order.sample(range(12), order.randint(2, 12))
        answers = asyncio.run(together(numbers))
        assert [said(answer) for answer in answers] == [alone[n] for n in numbers]
    app.close()


def test_an_image_that_takes_too_long_is_sent_away() -> None:
    slow = encode(Image.new("RGB", (4000, 4000)), "JPEG")
    with served(limits={"answer_seconds": 0.001}) as client:
        response = post(client, slow)
    assert (response.status_code, kind(response)) == (503, "overloaded")


def test_the_batcher_runs_what_waits_together_in_order_and_fails_alone() -> None:
    sizes: list[int] = []
    full = threading.Event()

    def double(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        assert full.wait(10)
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]

    async def work() -> list[Any]:
        batcher = MicroBatcher(double, max_batch=4, queue_size=12)
        first = asyncio.create_task(batcher([1]))
        while not sizes:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher([n])) for n in (2, 3, 4, 5, 13)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher(list(range(8)))
        full.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
        again = await batcher([7])
        batcher.close()
        return [*results, again]

    results = asyncio.run(work())
    assert results[:5] == [[2], [4], [6], [8], [10]]
    assert isinstance(results[5], ValueError)
    assert results[6] == [14]
    assert sizes[:3] == [1, 4, 1]


def test_threads_of_the_batcher_share_what_waits() -> None:
    both = threading.Barrier(2)

    def sizes(items: Sequence[int]) -> list[int]:
        both.wait(10)
        return [len(items)] * len(items)

    async def work() -> list[list[int]]:
        batcher = MicroBatcher(sizes, max_batch=8, queue_size=12, threads=2)
        results = await asyncio.gather(*(batcher([n]) for n in range(6)))
        batcher.close()
        return results

    assert asyncio.run(work()) == [[3]] * 6


def test_nothing_secret_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = add_key(tmp_path / "keys.json", "ann", ["predict"], None)
    image = digit()
    with served(ApiKeyStore(tmp_path / "keys.json")) as client:
        post(client, image, headers={**bearer(key), "X-Request-ID": "order-66"})
        post(client, image, headers=bearer("cvf_stolen"))
        post(client, b"not an image", headers={**bearer(key), "X-Request-ID": "evil\tid"})
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
