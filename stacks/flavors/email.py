"""Alerter flavor ``email``: sends alerts by SMTP."""

from typing import ClassVar, Literal, cast

from pydantic import Field, model_validator
from zenml.alerter.base_alerter import BaseAlerterConfig, BaseAlerterFlavor
from zenml.utils.secret_utils import SecretField

from cv_factory.monitoring.alert_message import AlertMessage
from cv_factory.monitoring.mail import Mailer
from cv_factory.serving.addresses import is_loopback
from stacks.flavors.alerter import LoggedAlerter


class EmailAlerterConfig(BaseAlerterConfig):
    """Settings of the flavor.

    Attributes:
        host: Of the mail server.
        port: Of the mail server.
        sender: Address.
        recipients: Addresses.
        security: ``starttls`` or ``tls`` (port 465), or ``none`` for a server on this machine.
        username: Of the account; none to send without one.
        password: Of the account.
        ca_file: PEM file of a CA of one's own.
        timeout: Of each answer of the server in seconds.
    """

    host: str
    port: int = Field(587, ge=1, le=65535)
    sender: str
    recipients: list[str] = Field(min_length=1)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = SecretField(default=None)
    password: str | None = SecretField(default=None)
    ca_file: str | None = None
    timeout: float = Field(10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _check_password(self) -> "EmailAlerterConfig":
        if self.security == "none" and self.username and not is_loopback(self.host):
            raise ValueError(f"security: none would send the password to {self.host} in clear text")
        return self


class EmailAlerterFlavor(BaseAlerterFlavor):
    """Flavor ``email``."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "email"

    @property
    def config_class(self) -> type[EmailAlerterConfig]:
        """Configuration class."""
        return EmailAlerterConfig

    @property
    def implementation_class(self) -> "type[EmailAlerter]":
        """Implementation class."""
        return EmailAlerter


class EmailAlerter(LoggedAlerter):
    """Sends alerts by e-mail."""

    FLAVOR: ClassVar[type[BaseAlerterFlavor]] = EmailAlerterFlavor

    @property
    def config(self) -> EmailAlerterConfig:
        """The settings."""
        return cast(EmailAlerterConfig, self._config)

    def deliver(self, message: AlertMessage) -> None:
        """Send a message; see ``Mailer.deliver``."""
        config = self.config
        Mailer(
            host=config.host,
            port=config.port,
            sender=config.sender,
            recipients=config.recipients,
            security=config.security,
            username=config.username or "",
            password=config.password or "",
            ca_file=config.ca_file or "",
            timeout_s=config.timeout,
        ).deliver(message)
