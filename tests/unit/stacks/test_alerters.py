"""Our alerters, and ZenML's own for Slack in their place."""

import functools
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from zenml.enums import StackComponentType

from cv_factory.errors import StackError
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.alert_message import DeliveryError
from registry import alerts
from stacks.flavors.alerter import LoggedAlerter
from stacks.flavors.email import EmailAlerter, EmailAlerterConfig, EmailAlerterFlavor
from stacks.flavors.webhook import WebhookAlerter, WebhookAlerterConfig, WebhookAlerterFlavor
from tests.support.alert_receiver import receive_alerts
from tests.unit.monitoring.test_webhook import MESSAGE


def _component(implementation: type[Any], config: Any, flavor: str) -> Any:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return implementation(
        name="ops",
        id=uuid4(),
        config=config,
        flavor=flavor,
        type=StackComponentType.ALERTER,
        user=None,
        created=now,
        updated=now,
        environment={},
        secrets=[],
    )


def test_the_webhook_delivers_as_its_settings_say() -> None:
    with receive_alerts() as receiver:
        config = WebhookAlerterConfig(url=receiver.url, format="alertmanager", secret="hush-hush")
        _component(WebhookAlerter, config, "webhook").deliver(MESSAGE)
    (post,) = receiver.posts
    assert post.json["version"] == "4"
    assert post.headers["X-CV-Factory-Signature"].startswith("t=")


def test_a_text_that_another_step_posts_is_logged_as_an_alert(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[Any] = []

    def send_event(alert: Alert) -> bool:
        events.append(alert)
        return False

    monkeypatch.setattr(alerts, "send_event", send_event)
    config = WebhookAlerterConfig(url="http://127.0.0.1:9")
    alerter: LoggedAlerter = _component(WebhookAlerter, config, "webhook")
    assert alerter.post("Training has ended.\n\nAccuracy 98 %.") is False
    assert (events[0].summary, events[0].detail) == ("Training has ended.", "Accuracy 98 %.")


def test_nobody_approves_by_not_answering() -> None:
    config = WebhookAlerterConfig(url="http://127.0.0.1:9")
    alerter: LoggedAlerter = _component(WebhookAlerter, config, "webhook")
    with pytest.raises(StackError, match=r"run\.py approve"):
        alerter.ask("Promote it?")


def test_mail_sends_no_password_in_clear_text() -> None:
    addresses = {"sender": "a@example.org", "recipients": ["b@example.org"]}
    account = {"username": "ann", "password": "hush", "security": "none"}
    with pytest.raises(ValueError, match=r"password to mail\.example\.org in clear text"):
        EmailAlerterConfig(host="mail.example.org", **addresses, **account)
    config = EmailAlerterConfig(host="127.0.0.1", **addresses, **account)
    assert isinstance(_component(EmailAlerter, config, "email"), alerts.Alerter)


@pytest.mark.parametrize("flavor", [WebhookAlerterFlavor(), EmailAlerterFlavor()])
def test_flavors_name_what_they_make(flavor: Any) -> None:
    assert flavor.type == StackComponentType.ALERTER
    assert issubclass(flavor.implementation_class, LoggedAlerter)
    assert flavor.config_class.__name__.startswith(flavor.name.title())


@pytest.mark.parametrize("is_ok", [True, False])
def test_zenmls_slack_alerter_posts_the_message(
    monkeypatch: pytest.MonkeyPatch, is_ok: bool
) -> None:
    """Against a local double of Slack's API: nothing outside can be reached."""
    from zenml.integrations.slack.alerters import SlackAlerter, slack_alerter
    from zenml.integrations.slack.flavors import SlackAlerterConfig

    config = SlackAlerterConfig(slack_token="xoxb-token", slack_channel_id="C1")
    alerter = _component(SlackAlerter, config, "slack")
    stack = type("Stack", (), {"alerter": alerter})
    monkeypatch.setattr(alerts, "Client", lambda: type("Client", (), {"active_stack": stack}))
    with receive_alerts(path="/") as fake_slack:
        fake_slack.answer = b'{"ok": true}' if is_ok else b'{"ok": false, "error": "no_channel"}'
        client = functools.partial(slack_alerter.WebClient, base_url=fake_slack.url)
        monkeypatch.setattr(slack_alerter, "WebClient", client)
        deliver = alerts._select_alerter()
        assert deliver is not None
        if is_ok:
            deliver(MESSAGE)
        else:
            with pytest.raises(DeliveryError, match="alerter ops did not post it"):
                deliver(MESSAGE)
    (post,) = fake_slack.posts
    assert post.path == "/chat.postMessage"
    assert b"Confidence" in post.body
