"""Alerts by HTTP: as JSON or in Alertmanager's form (v4), signed with HMAC-SHA256, with retries.

The signature is that of Stripe's webhooks: a header ``t=SECONDS,v1=HEX`` over ``SECONDS.BODY``, so
that a receiver can refuse what is old or was changed.
"""

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from cv_factory.monitoring.alert_message import AlertMessage, DeliveryError, RefusedAlertError
from cv_factory.serving.http_client import open_http_client

if TYPE_CHECKING:
    from httpx import Client

SIGNATURE_HEADER = "X-CV-Factory-Signature"
Format = Literal["json", "alertmanager"]
#: Statuses that say that the message itself is at fault.
_REFUSALS = (400, 413, 422)


@dataclass(frozen=True)
class Webhook:
    """Receiver of alerts.

    Attributes:
        url: Where they are posted. Its path and query may be a secret, and appear in no message.
        format: Of the body.
        secret: Key of the signature; empty for none.
        attempts: Number of attempts for a delivery.
        backoff_s: Seconds before the second attempt; twice as many before each further one.
        timeout_s: Of an attempt in seconds.
        sleep: Waits for so many seconds.
    """

    url: str
    format: Format = "json"
    secret: str = field(default="", repr=False)
    attempts: int = 3
    backoff_s: float = 0.5
    timeout_s: float = 5.0
    sleep: Callable[[float], None] = time.sleep

    def deliver(self, message: AlertMessage) -> None:
        """Post a message; try again where the receiver is down or busy.

        Raises:
            DeliveryError: It stayed so.
            RefusedAlertError: It refuses this body (400, 413, 422).
            ConfigError: The URL is malformed.
        """
        # They log the URL of each request, which may be a secret.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        build = message.to_dict if self.format == "json" else lambda: alertmanager_payload(message)
        body = json.dumps(build(), ensure_ascii=False).encode()
        problem = ""
        # Errors name no more than this.
        origin = urlsplit(self.url)._replace(path="", query="", fragment="").geturl()
        with open_http_client(origin, timeout=self.timeout_s) as client:
            for attempt in range(self.attempts):
                if attempt:
                    self.sleep(self.backoff_s * 2 ** (attempt - 1))
                problem, is_final = self._post(client, body, message.id)
                if not problem:
                    return
                if is_final:
                    break
        raise DeliveryError(f"The webhook at {self._host} {problem}.")

    def _post(self, client: "Client", body: bytes, message_id: str) -> tuple[str, bool]:
        """Return why a post failed, empty if it did not, and whether it would fail again."""
        import httpx

        headers = {"Content-Type": "application/json", "Idempotency-Key": message_id}
        if self.secret:
            headers[SIGNATURE_HEADER] = sign(body, self.secret, int(time.time()))
        try:
            response = client.post(self.url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"cannot be reached ({type(error).__name__})", False
        if response.status_code in _REFUSALS:
            raise RefusedAlertError(
                f"The webhook at {self._host} refuses it with {response.status_code}."
            )
        if response.is_success:
            return "", True
        is_transient = response.status_code in (408, 429) or response.status_code >= 500
        return f"answers {response.status_code}", not is_transient

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or "?"


def sign(body: bytes, secret: str, seconds: int) -> str:
    """Return the header's value for a body that is sent ``seconds`` after 1970."""
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    return f"t={seconds},v1={digest.hexdigest()}"


def is_signed(body: bytes, header: str, secret: str, now: float, max_age_s: float = 300) -> bool:
    """Whether a header is the signature of a body, made at most ``max_age_s`` seconds ago."""
    fields = dict(part.partition("=")[::2] for part in header.split(","))
    seconds = fields.get("t", "")
    if not seconds.isdecimal() or abs(now - int(seconds)) > max_age_s:
        return False
    return hmac.compare_digest(sign(body, secret, int(seconds)), header)


def alertmanager_payload(message: AlertMessage) -> dict[str, Any]:
    """Return a message as Alertmanager would post it to a webhook (version 4).

    Source: prometheus.io/docs/alerting/latest/configuration/#webhook_config
    """
    alert = message.alert
    labels = {
        "alertname": alert.incident.split("/")[0],
        "incident": alert.incident,
        "severity": alert.severity,
        **alert.labels,
    }
    annotations = {"summary": alert.summary, "description": alert.detail}
    is_resolved = alert.status == "resolved"
    ended = message.time.isoformat() if is_resolved else "0001-01-01T00:00:00Z"
    one = {
        "status": alert.status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": message.started.isoformat(),
        "endsAt": ended,
        "generatorURL": "",
        "fingerprint": hashlib.sha256(alert.incident.encode()).hexdigest()[:16],
    }
    return {
        "version": "4",
        "groupKey": alert.incident,
        "truncatedAlerts": 0,
        "status": alert.status,
        "receiver": "cv_factory",
        "groupLabels": {"incident": alert.incident},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [one],
    }
