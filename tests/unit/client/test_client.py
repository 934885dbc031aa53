"""The Python client and ``run.py predict``: keys, addresses and proxies as people have them."""

import os
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from cli.main import command
from cv_factory.errors import ConfigError
from cv_factory.serving.http_client import bypass_proxies_on_loopback, open_http_client
from cv_factory_client import ClientConfigError, PredictionClient, RetryPolicy, ServiceError
from tests.support.digits_service import digit_png

UNREACHABLE = "http://127.0.0.1:9"


def predict(tmp_path: Path, *options: str) -> Result:
    image = tmp_path / "digit.png"
    image.write_bytes(digit_png())
    return CliRunner().invoke(command, ["predict", str(image), *options])


def test_a_service_that_cannot_be_reached_is_not_the_images_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cv_factory_client.clients.time.sleep", lambda _seconds: None)
    result = predict(tmp_path, "--url", UNREACHABLE)
    assert str(result.exception) == (
        f"{UNREACHABLE} cannot be reached: Connection refused. What is served, and where: python "
        "run.py status"
    )


@pytest.mark.parametrize(("key", "sent"), [("cvf_secret\n", "Bearer cvf_secret"), ("\n", None)])
def test_white_space_around_a_key_is_removed(key: str, sent: str | None) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers.get("authorization") == sent
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    with PredictionClient("http://service", key, transport=transport) as client:
        assert client.is_ready()


@pytest.mark.parametrize("key", ["cvf_se\ncret", "cvf_секрет", "cvf_se cret", "cvf_se\x00cret"])
def test_a_key_that_fits_no_header_is_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    result = predict(tmp_path, "--url", UNREACHABLE, "--api-key", key)
    assert isinstance(result.exception, ConfigError)
    assert "CV_FACTORY_API_KEY" in str(result.exception)
    assert "cvf_" not in str(result.exception)


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://a:b", "http://u:secret@[::1", "localhost:3000", "ftp://u:secret@a"],
)
def test_a_malformed_address_is_refused_and_its_password_not_shown(
    tmp_path: Path, url: str
) -> None:
    result = predict(tmp_path, "--url", url)
    assert isinstance(result.exception, ConfigError)
    assert "is not a valid URL" in str(result.exception)
    assert "secret" not in str(result.exception)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "ftp://u:pw@a"])
def test_no_proxy_is_used_on_loopback(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    for host in ("127.0.0.1", "localhost", "[::1]", "127.1.2.3"):
        with (
            PredictionClient(f"http://{host}:9", retries=RetryPolicy(attempts=1)) as client,
            pytest.raises(ServiceError) as caught,
        ):
            client.predict(b"")
        assert "proxy" not in str(caught.value)


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:password@127.0.0.1:9")
    with (
        PredictionClient("http://service.example", retries=RetryPolicy(attempts=1)) as client,
        pytest.raises(ServiceError, match="names a proxy: HTTP_PROXY") as caught,
    ):
        client.predict(b"")
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://user:password@127.0.0.1"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    for open_client in (open_http_client, PredictionClient):
        with pytest.raises((ConfigError, ClientConfigError), match="Unset ALL_PROXY") as caught:
            open_client("http://service.example", timeout=1.0)
        assert "password" not in str(caught.value)


def test_other_packages_use_no_proxy_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    bypass_proxies_on_loopback()
    assert "NO_PROXY" not in os.environ
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "a.example, localhost")
    monkeypatch.setenv("NO_PROXY", "")
    for _ in range(2):
        bypass_proxies_on_loopback()
        assert (
            os.environ["NO_PROXY"]
            == os.environ["no_proxy"]
            == ("a.example,localhost,127.0.0.1,::1")
        )
