"""Alerts by e-mail (SMTP): the messages of one incident are one thread."""

import hashlib
import logging
import smtplib
import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Literal

from cv_factory.monitoring.alert_message import AlertMessage, DeliveryError, RefusedAlertError

logger = logging.getLogger(__name__)

Security = Literal["starttls", "tls", "none"]


@dataclass(frozen=True)
class Mailer:
    """Mail server, and who writes to whom.

    Attributes:
        host: Of the server.
        port: Of the server.
        sender: Address.
        recipients: Addresses.
        security: ``starttls`` or ``tls``, both with a verified certificate, or ``none``.
        username: Of the account; empty to send without one.
        password: Of the account.
        ca_file: PEM file of a CA of one's own; empty for the system's.
        timeout_s: Of each answer of the server in seconds.
    """

    host: str
    port: int
    sender: str
    recipients: Sequence[str]
    security: Security = "starttls"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    timeout_s: float = 10.0

    def deliver(self, message: AlertMessage) -> None:
        """Send a message.

        Raises:
            DeliveryError: The server cannot be reached, or does not take it now.
            RefusedAlertError: It refuses this very message.
        """
        place = f"The mail server {self.host}:{self.port}"
        try:
            with self._connect() as server:
                refused = server.send_message(self.build(message))
        except smtplib.SMTPDataError as error:
            if error.smtp_code < 500:
                raise DeliveryError(f"{place} answers {error.smtp_code}.") from None
            raise RefusedAlertError(f"{place} refuses it with {error.smtp_code}.") from None
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"{place} answers {error.smtp_code}.") from None
        except smtplib.SMTPRecipientsRefused:
            raise DeliveryError(f"{place} takes none of the recipients.") from None
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryError(f"{place} cannot be used ({type(error).__name__}).") from None
        if refused:
            logger.error("%s does not take alerts for %s.", place, ", ".join(refused))

    def build(self, message: AlertMessage) -> EmailMessage:
        """Return the e-mail of a message."""
        domain = self.sender.rpartition("@")[2] or "localhost"
        thread = hashlib.sha256(f"{message.alert.incident} {message.started}".encode())
        mail = EmailMessage()
        mail["Subject"] = message.title
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Date"] = format_datetime(message.time)
        mail["Message-ID"] = f"<{message.id}@{domain}>"
        mail["References"] = f"<{thread.hexdigest()[:32]}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.render_text())
        return mail

    def _connect(self) -> smtplib.SMTP:
        """Return a connection that is encrypted as configured, and logged in."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=self.timeout_s, context=context
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=self.timeout_s)
        with ExitStack() as undo:
            undo.callback(server.close)
            if self.security == "starttls":
                server.starttls(context=context)
            if self.username:
                server.login(self.username, self.password)
            undo.pop_all()
        return server
