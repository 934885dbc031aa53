"""Alerts by HTTP, to a real server."""

import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.alert_message import AlertMessage, DeliveryError, RefusedAlertError
from cv_factory.monitoring.webhook import Webhook, alertmanager_payload, is_signed
from cv_factory.processes.ports import find_free_port
from tests.support.alert_receiver import AlertReceiver, receive_alerts

ALERT = Alert(
    "drift/digits/confidence",
    "firing",
    "warning",
    "Confidence has shifted: evidence 140",
    "Look at the report.",
    {"model": "digits"},
)
MESSAGE = AlertMessage(
    "00ff", datetime(2026, 11, 29, 12, tzinfo=UTC), datetime(2026, 11, 29, 11, tzinfo=UTC), ALERT
)


def _webhook(receiver: AlertReceiver, waits: list[float] | None = None, **settings: Any) -> Webhook:
    sleep = (waits if waits is not None else []).append
    return Webhook(receiver.url, sleep=sleep, **settings)


def test_an_alert_is_posted_as_json_with_a_signature() -> None:
    with receive_alerts(path="/hook?channel=ops") as receiver:
        _webhook(receiver, secret="key-of-both").deliver(MESSAGE)
    (post,) = receiver.posts
    assert post.path == "/hook?channel=ops"
    assert AlertMessage.from_dict(post.json) == MESSAGE
    assert post.json["schema"] == 1
    assert post.headers["Idempotency-Key"] == "00ff"
    header = post.headers["X-CV-Factory-Signature"]
    assert is_signed(post.body, header, "key-of-both", time.time())
    assert not is_signed(post.body + b" ", header, "key-of-both", time.time())
    assert not is_signed(post.body, header, "another key", time.time())
    assert not is_signed(post.body, header, "key-of-both", time.time() + 301)
    assert not is_signed(post.body, "v1=00", "key-of-both", time.time())
    assert b"key-of-both" not in post.body


def test_no_log_has_the_url(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    with receive_alerts(path="/hook/of-secret-name") as receiver:
        _webhook(receiver).deliver(MESSAGE)
    assert receiver.posts
    assert "of-secret-name" not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["htps://chat/of-secret-name", "chat/of-secret-name", "http://127.0.0.1:1/of-secret-name\0"],
)
def test_a_malformed_url_is_an_error_that_does_not_tell_it(url: str) -> None:
    with pytest.raises(CVFactoryError) as raised:
        Webhook(url, sleep=lambda _: None).deliver(MESSAGE)
    assert "of-secret-name" not in str(raised.value)


def test_an_alert_is_posted_as_alertmanager_does() -> None:
    with receive_alerts() as receiver:
        _webhook(receiver, format="alertmanager").deliver(MESSAGE)
    payload = receiver.posts[0].json
    assert payload == alertmanager_payload(MESSAGE)
    assert (payload["version"], payload["status"]) == ("4", "firing")
    (alert,) = payload["alerts"]
    assert alert["labels"] == {
        "alertname": "drift",
        "incident": "drift/digits/confidence",
        "severity": "warning",
        "model": "digits",
    }
    assert alert["annotations"]["summary"] == ALERT.summary
    assert alert["startsAt"] == "2026-11-29T11:00:00+00:00"
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    resolved = replace(MESSAGE, alert=replace(ALERT, status="resolved"))
    ended = alertmanager_payload(resolved)["alerts"][0]
    assert ended["endsAt"] == "2026-11-29T12:00:00+00:00"
    assert ended["fingerprint"] == alert["fingerprint"]


def test_a_busy_receiver_is_asked_again_after_growing_waits() -> None:
    waits: list[float] = []
    with receive_alerts() as receiver:
        receiver.statuses = [503, 429]
        _webhook(receiver, waits).deliver(MESSAGE)
    assert [json.loads(post.body)["id"] for post in receiver.posts] == ["00ff"] * 3
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize(
    ("statuses", "n_posts", "error"),
    [
        ([500, 502, 503], 3, DeliveryError),
        ([401], 1, DeliveryError),
        ([307], 1, DeliveryError),
        ([413], 1, RefusedAlertError),
    ],
)
def test_what_a_receiver_does_not_take(
    statuses: list[int], n_posts: int, error: type[Exception]
) -> None:
    with receive_alerts(path="/services/T00/SECRET") as receiver:
        receiver.statuses = list(statuses)
        with pytest.raises(error, match=rf"127\.0\.0\.1.*{statuses[-1]}") as caught:
            _webhook(receiver).deliver(MESSAGE)
    assert type(caught.value) is error
    assert len(receiver.posts) == n_posts
    assert "SECRET" not in str(caught.value)


def test_a_receiver_that_is_down() -> None:
    url = f"http://127.0.0.1:{find_free_port()}/services/SECRET"
    webhook = Webhook(url, attempts=2, sleep=lambda _: None)
    with pytest.raises(DeliveryError, match=r"cannot be reached \(ConnectError\)") as caught:
        webhook.deliver(MESSAGE)
    assert "SECRET" not in str(caught.value)
