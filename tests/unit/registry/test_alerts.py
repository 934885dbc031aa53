"""Alerts: one message for each change of an incident, none lost while a receiver is down."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.alert_message import AlertMessage, DeliveryError, RefusedAlertError
from cv_factory.monitoring.metrics_file import FOLDER_VARIABLE, read_metric
from cv_factory.monitoring.webhook import Webhook
from cv_factory.processes.ports import find_free_port
from registry import alert_log, alerts
from tests.support.alert_receiver import receive_alerts

DRIFT = Alert("drift/digits/confidence", "firing", "warning", "Confidence has shifted.")
RESOLVED = replace(DRIFT, status="resolved")


@dataclass
class Receiver:
    """Alerter of ours that is up or down."""

    error: Exception | None = None
    messages: list[AlertMessage] = field(default_factory=list)

    def deliver(self, message: AlertMessage) -> None:
        if self.error is not None:
            raise self.error
        self.messages.append(message)

    @property
    def titles(self) -> list[str]:
        return [message.title for message in self.messages]


@pytest.fixture
def use_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], None]:
    """Activate a stack with an alerter, whose artifact store is a folder."""
    monkeypatch.setattr(
        alerts, "GlobalConfiguration", lambda: SimpleNamespace(local_stores_path=tmp_path)
    )

    def activate(alerter: Any) -> None:
        store = SimpleNamespace(path=str(tmp_path))
        stack = SimpleNamespace(artifact_store=store, alerter=alerter)
        monkeypatch.setattr(alerts, "Client", lambda: SimpleNamespace(active_stack=stack))

    return activate


@pytest.fixture
def receiver(use_stack: Callable[[Any], None]) -> Receiver:
    """The alerter of the active stack."""
    receiver = Receiver()
    use_stack(receiver)
    return receiver


def _outcomes() -> list[str]:
    return [outcome for _, outcome in alerts.open_alert_log().last_entries(100)][::-1]


def test_an_incident_is_announced_once_when_it_begins_worsens_and_ends(receiver: Receiver) -> None:
    worse = replace(DRIFT, severity="critical")
    for alert in (RESOLVED, DRIFT, DRIFT, worse, DRIFT, worse, RESOLVED, RESOLVED, DRIFT):
        alerts.send_alerts([alert], "digits")
    assert [(m.alert.status, m.alert.severity) for m in receiver.messages] == [
        ("firing", "warning"),
        ("firing", "critical"),
        ("resolved", "warning"),
        ("firing", "warning"),
    ]
    first, second, third, fourth = receiver.messages
    assert first.started == second.started == third.started < fourth.started
    assert first.alert.labels == {"model": "digits"}
    assert [entry.message for entry in alerts.open_alert_log().open_incidents()] == [fourth]


def test_messages_wait_for_a_receiver_that_is_down_and_arrive_in_order(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.error = DeliveryError("The webhook at example.org answers 503.")
    other = Alert("rollout/digits", "firing", "critical", "Rolled back.")
    for alert in (DRIFT, RESOLVED, other):
        alerts.send_alerts([alert], "digits")
    assert "waits until its receiver takes it: The webhook at example.org answers 503" in (
        caplog.text
    )
    assert _outcomes() == ["waiting"] * 3
    with pytest.raises(DeliveryError):
        alerts.deliver_pending()
    receiver.error = None
    assert alerts.deliver_pending() == ["sent"] * 3
    assert receiver.titles == [
        "[WARNING] Confidence has shifted.",
        "[RESOLVED] Confidence has shifted.",
        "[CRITICAL] Rolled back.",
    ]
    assert alerts.deliver_pending() == []
    assert _outcomes() == ["sent"] * 3


def test_a_refused_message_does_not_hold_up_those_after_it(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.error = RefusedAlertError("The webhook at example.org refuses it with 413.")
    assert not alerts.send_event(DRIFT, "digits")
    receiver.error = None
    assert alerts.send_event(RESOLVED, "digits")
    assert receiver.titles == ["[RESOLVED] Confidence has shifted."]
    assert _outcomes() == ["refused", "sent"]
    assert "Alert 1 is not delivered" in caplog.text


def test_waiting_messages_are_bounded_and_dropped_loudly(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alert_log, "MAX_PENDING", 2)
    receiver.error = DeliveryError("down")
    for alert in (DRIFT, RESOLVED, DRIFT):
        alerts.send_alerts([alert], "digits")
    assert _outcomes() == ["dropped", "waiting", "waiting"]
    assert "Alert 1 is dropped" in caplog.text


def test_a_message_that_was_not_marked_is_sent_again_with_its_id(
    receiver: Receiver, tmp_path: Path
) -> None:
    alerts.send_alerts([DRIFT], "digits")
    (tmp_path / alerts.FOLDER / "00000001.end.json").unlink()  # killed in between
    alerts.deliver_pending()
    first, second = receiver.messages
    assert first == second


def test_two_processes_announce_one_incident_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = alerts.open_alert_log(), alerts.open_alert_log()
    create = log._files.create

    def create_second(name: str, content: bytes) -> None:
        monkeypatch.setattr(log._files, "create", create)
        other.add(DRIFT, datetime(2026, 1, 1, tzinfo=UTC))
        create(name, content)

    monkeypatch.setattr(log._files, "create", create_second)
    assert log.add(DRIFT, datetime(2026, 1, 2, tzinfo=UTC)) is None
    assert len(log.pending()) == 1


def test_a_stack_without_an_alerter_keeps_its_incidents(use_stack: Callable[[Any], None]) -> None:
    use_stack(None)
    alerts.send_alerts([DRIFT], "digits")
    assert _outcomes() == ["unsent"]
    assert len(alerts.open_alert_log().open_incidents()) == 1
    receiver = Receiver()
    use_stack(receiver)
    alerts.send_alerts([RESOLVED], "digits")
    assert receiver.titles == ["[RESOLVED] Confidence has shifted."]
    assert _outcomes() == ["unsent", "sent"]


@pytest.mark.parametrize("error", [None, ValueError("no channel"), OSError("unreachable")])
def test_an_alerter_of_others_gets_a_text(
    use_stack: Callable[[Any], None], error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    texts: list[str] = []

    def post(text: str) -> bool:
        if error is not None:
            raise error
        texts.append(text)
        return len(texts) > 1

    use_stack(SimpleNamespace(name="chat", post=post))
    alerts.send_alerts([replace(DRIFT, detail="Look at the report.")], "digits")
    assert _outcomes() == ["waiting"]
    assert "The alerter chat" in caplog.text
    if error is None:
        alerts.send_alerts([], "digits")
        assert _outcomes() == ["sent"]
        assert "Look at the report.\n\nmodel: digits\nincident: drift/digits" in texts[-1]


def test_no_secret_is_logged_or_sent(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2-hunter2")
    secrets = ("hunter2-hunter2", "cvf_abcdefghijklmnop", "s3cret-token")
    text = "postgresql://ann:hunter2-hunter2@db failed; X-API-Key: cvf_abcdefghijklmnop"
    alert = replace(DRIFT, summary=text, detail="GET https://x.org/?token=s3cret-token&page=2")
    alerts.send_alerts([alert], "digits")
    sent = json.dumps(receiver.messages[0].to_dict())
    stored = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    for secret in secrets:
        assert secret not in sent
        assert secret not in stored
    assert "page=2" in sent


def test_a_damaged_log_stops_nothing_and_is_loud(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / alerts.FOLDER).mkdir()
    (tmp_path / alerts.FOLDER / "00000001.json").write_text("{")
    alerts.send_alerts([DRIFT], "digits")
    assert "Alerts are not sent (00000001.json of the alert log is damaged" in caplog.text
    assert "Confidence has shifted." in caplog.text


def test_waiting_messages_and_open_incidents_are_metrics(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "metrics"))

    def read(name: str, **labels: str) -> float | None:
        return read_metric(tmp_path / "metrics", "cv_factory_alerts", name, labels)

    receiver.error = DeliveryError("down")
    alerts.send_alerts([DRIFT], "digits")
    assert read("cv_factory_alerts_waiting") == 1
    assert read("cv_factory_incidents", severity="warning") == 1
    assert read("cv_factory_incidents", severity="critical") == 0
    receiver.error = None
    alerts.send_alerts([DRIFT], "digits")  # nothing new, but what waits is sent
    assert read("cv_factory_alerts_waiting") == 0
    assert len(receiver.messages) == 1


def test_nothing_is_lost_while_a_real_webhook_is_down(use_stack: Callable[[Any], None]) -> None:
    port = find_free_port()
    use_stack(Webhook(f"http://127.0.0.1:{port}/hook", attempts=1))
    for alert in (DRIFT, RESOLVED, DRIFT):
        alerts.send_alerts([alert], "digits")
    with receive_alerts(port) as receiver:
        receiver.statuses = [503]
        alerts.send_alerts([RESOLVED], "digits")
        assert _outcomes() == ["waiting"] * 4
        alerts.send_alerts([RESOLVED], "digits")
    statuses = [post.json["status"] for post in receiver.posts]
    assert statuses == ["firing", "firing", "resolved", "firing", "resolved"]
    assert receiver.posts[0].json == receiver.posts[1].json
    assert _outcomes() == ["sent"] * 4
