"""Alerter flavor ``webhook``: posts alerts to a URL."""

from typing import ClassVar, Literal, cast

from pydantic import Field
from zenml.alerter.base_alerter import BaseAlerterConfig, BaseAlerterFlavor
from zenml.utils.secret_utils import SecretField

from cv_factory.monitoring.alert_message import AlertMessage
from cv_factory.monitoring.webhook import Webhook
from stacks.flavors.alerter import LoggedAlerter


class WebhookAlerterConfig(BaseAlerterConfig):
    """Settings of the flavor.

    Attributes:
        url: Where alerts are posted; a secret, since that of a chat lets anybody post.
        format: ``json``, or ``alertmanager`` for what takes Alertmanager's webhooks (v4).
        secret: Key of the signature (HMAC-SHA256).
        attempts: Number of attempts for a delivery.
        timeout: Of an attempt in seconds.
    """

    url: str = SecretField()
    format: Literal["json", "alertmanager"] = "json"
    secret: str | None = SecretField(default=None)
    attempts: int = Field(3, ge=1, le=10)
    timeout: float = Field(5.0, gt=0, le=60)


class WebhookAlerterFlavor(BaseAlerterFlavor):
    """Flavor ``webhook``."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "webhook"

    @property
    def config_class(self) -> type[WebhookAlerterConfig]:
        """Configuration class."""
        return WebhookAlerterConfig

    @property
    def implementation_class(self) -> "type[WebhookAlerter]":
        """Implementation class."""
        return WebhookAlerter


class WebhookAlerter(LoggedAlerter):
    """Posts alerts to a URL."""

    FLAVOR: ClassVar[type[BaseAlerterFlavor]] = WebhookAlerterFlavor

    @property
    def config(self) -> WebhookAlerterConfig:
        """The settings."""
        return cast(WebhookAlerterConfig, self._config)

    def deliver(self, message: AlertMessage) -> None:
        """Post a message; see ``Webhook.deliver``."""
        config = self.config
        Webhook(
            url=config.url,
            format=config.format,
            secret=config.secret or "",
            attempts=config.attempts,
            timeout_s=config.timeout,
        ).deliver(message)
