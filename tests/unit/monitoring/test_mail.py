"""Alerts by e-mail, to a real SMTP server (aiosmtpd)."""

import ssl
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from cv_factory.monitoring.alert_message import DeliveryError, RefusedAlertError
from cv_factory.monitoring.mail import Mailer
from cv_factory.processes.ports import find_free_port
from tests.support.certificates import CertificateAuthority
from tests.unit.monitoring.test_webhook import MESSAGE


class MailServer:
    """What a server took; it answers ``status`` to a message."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.status = "250 OK"

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address == "gone@example.org":
            return "550 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        assert session.ssl is not None
        mail = BytesParser(policy=default).parsebytes(envelope.original_content)
        assert isinstance(mail, EmailMessage)
        if self.status.startswith("250"):
            self.mails.append(mail)
        return self.status


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The CA of the server's certificate."""
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def running_server(authority: CertificateAuthority) -> Iterator[tuple[MailServer, Mailer]]:
    """A server that wants STARTTLS and the password ``secret of ann``, and a mailer of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue())
    server = MailServer()

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> Any:
        is_right = isinstance(data, LoginPassword) and data.password == b"secret of ann"
        return AuthResult(success=is_right, handled=False)

    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=find_free_port(),
        tls_context=context,
        require_starttls=True,
        authenticator=check,
        auth_required=True,
    )
    controller.start()
    mailer = Mailer(
        "127.0.0.1",
        controller.port,
        "factory@example.org",
        ["ann@example.org", "bo@example.org"],
        username="ann",
        password="secret of ann",
        ca_file=str(authority.file),
    )
    yield server, mailer
    controller.stop()


@pytest.fixture
def server(running_server: tuple[MailServer, Mailer]) -> MailServer:
    """The server without mail."""
    server, _ = running_server
    server.mails, server.status = [], "250 OK"
    return server


@pytest.fixture
def mailer(running_server: tuple[MailServer, Mailer]) -> Mailer:
    """Sends to the server."""
    return running_server[1]


def test_messages_of_an_incident_are_a_thread(server: MailServer, mailer: Mailer) -> None:
    alert = replace(MESSAGE.alert, summary="Confidence has\nshifted")
    mailer.deliver(replace(MESSAGE, alert=alert))
    mailer.deliver(replace(MESSAGE, id="01", alert=replace(alert, status="resolved")))
    first, second = server.mails
    assert first["Subject"] == "[WARNING] Confidence has shifted"
    assert second["Subject"] == "[RESOLVED] Confidence has shifted"
    assert first["To"] == "ann@example.org, bo@example.org"
    assert first["Message-ID"] == "<00ff@example.org>"
    assert first["References"] == second["References"]
    text = first.get_content()
    assert "Look at the report." in text
    assert "incident: drift/digits/confidence" in text


@pytest.mark.parametrize(
    ("status", "error"),
    [("451 Try later", DeliveryError), ("552 Too large", RefusedAlertError)],
)
def test_what_the_server_does_not_take(
    server: MailServer, mailer: Mailer, status: str, error: type[Exception]
) -> None:
    server.status = status
    with pytest.raises(error, match=status[:3]) as caught:
        mailer.deliver(MESSAGE)
    assert type(caught.value) is error


def test_an_address_that_is_refused_is_logged(
    server: MailServer, mailer: Mailer, caplog: pytest.LogCaptureFixture
) -> None:
    replace(mailer, recipients=["gone@example.org", "ann@example.org"]).deliver(MESSAGE)
    assert len(server.mails) == 1
    assert "does not take alerts for gone@example.org" in caplog.text
    with pytest.raises(DeliveryError, match="takes none of the recipients"):
        replace(mailer, recipients=["gone@example.org"]).deliver(MESSAGE)


def test_a_wrong_password_is_in_no_message(server: MailServer, mailer: Mailer) -> None:
    with pytest.raises(DeliveryError, match="answers 535") as caught:
        replace(mailer, password="wrong-password").deliver(MESSAGE)
    assert "wrong" not in str(caught.value)
    assert "wrong" not in repr(replace(mailer, password="wrong-password"))
    assert not server.mails


def test_nothing_is_sent_over_a_certificate_that_nobody_vouches_for(
    server: MailServer, mailer: Mailer
) -> None:
    with pytest.raises(DeliveryError, match="SSLCertVerificationError"):
        replace(mailer, ca_file="").deliver(MESSAGE)
    assert not server.mails


def test_a_server_that_is_down(mailer: Mailer, tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="cannot be used"):
        replace(mailer, port=find_free_port()).deliver(MESSAGE)
