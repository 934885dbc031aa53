"""TLS at a model's port: HTTP/2, a certificate that is renewed, and the page in a browser."""

import http.client
import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cv_factory.deployment.local.proxy_process import ProxyProcess
from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.local.tls import client_context
from cv_factory.deployment.traffic import TlsFiles
from cv_factory.processes.ports import find_free_port
from tests.support.certificates import CertificateAuthority
from tests.support.digits_service import DigitsService
from tests.support.waiting import wait_until
from tests.unit.deployment.test_proxy import EchoServer

pytestmark = pytest.mark.engines


@dataclass(frozen=True)
class TlsProxy:
    """A proxy with TLS, and two certificates of which it uses the first."""

    process: ProxyProcess
    tls: TlsFiles
    new: TlsFiles

    def route(self, backend: Backend) -> None:
        self.process.set_routes(Routes(backends=(backend,), tls=self.tls), 20)

    def connect(self) -> http.client.HTTPSConnection:
        """Connect, and trust both certificates."""
        context = client_context(self.tls)
        context.load_verify_locations(self.new.certificate)
        return http.client.HTTPSConnection("127.0.0.1", self.process.port, context=context)

    def served_certificate(self) -> str:
        return ssl.get_server_certificate(("127.0.0.1", self.process.port))


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[TlsProxy]:
    authority = CertificateAuthority(tmp_path)
    folder = tmp_path / "digits" / "front"
    folder.parent.mkdir()
    process = ProxyProcess(folder, f"{folder}#front", "127.0.0.1", find_free_port())
    try:
        yield TlsProxy(process, TlsFiles(*authority.issue()), TlsFiles(*authority.issue("new")))
    finally:
        process.remove(20)


def test_a_certificate_is_renewed_and_no_connection_ends(proxy: TlsProxy) -> None:
    server = EchoServer("only")
    try:
        proxy.route(server.backend(1.0))
        kept = proxy.connect()
        post(kept)
        before = proxy.served_certificate()
        # As between the writing of one file and the other.
        shutil.copy(proxy.new.key, proxy.tls.key)
        wait_until(lambda: "The certificate in use stays" in log(proxy))
        assert proxy.served_certificate() == before
        shutil.copy(proxy.new.certificate, proxy.tls.certificate)
        wait_until(lambda: proxy.served_certificate() == proxy.new.certificate.read_text())
        socket = kept.sock
        post(kept)
        assert kept.sock is socket, "not connected again"
        post(proxy.connect())
    finally:
        server.shutdown()


def post(connection: http.client.HTTPSConnection) -> None:
    connection.request("POST", "/", b"x")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"x")


@contextmanager
def stopping(service: DigitsService) -> Iterator[None]:
    try:
        yield
    finally:
        service.stop()


def log(proxy: TlsProxy) -> str:
    return (proxy.process.folder / "process.log").read_text()


def test_the_page_predicts_an_image_over_http_2(
    proxy: TlsProxy, engine: Callable[..., str], tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    chromium = engine("chromium", "chromium-browser")
    (tmp_path / "service").mkdir()
    service = DigitsService(tmp_path / "service")
    with stopping(service), sync_playwright() as playwright:
        service.wait()
        proxy.route(Backend("only", int(service.url.rpartition(":")[2]), 1.0))
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page(ignore_https_errors=True)
        page.goto(f"https://127.0.0.1:{proxy.process.port}")
        expect(page.locator("h1")).to_have_text("digits predictor, version 7")
        page.locator("summary").click()
        page.locator("#key").fill(service.key)
        page.locator("#key").blur()
        page.locator("#file").set_input_files(service.image)
        expect(page.locator("#probabilities tr")).to_have_count(10)
        navigation = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
        assert page.evaluate(navigation) == "h2"
        browser.close()
