"""Alerts through the alerter of the active stack: one message for each change of an incident.

A message is logged in the stack's artifact store before it is delivered, and waits there while the
receiver is down: the next alert, or ``run.py alerts --deliver``, delivers it, in order. One that is
delivered twice, since a process died in between, has the same id. Any ZenML alerter will do.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from prometheus_client import CollectorRegistry, Gauge
from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration

from cv_factory.artifacts.files import file_lock
from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.alert import Alert, Severity
from cv_factory.monitoring.alert_message import AlertMessage, DeliveryError, RefusedAlertError
from cv_factory.monitoring.metrics_file import metrics_folder, write_metrics
from cv_factory.monitoring.redaction import redact
from registry.alert_log import AlertLog, LoggedAlert, Outcome
from registry.audit.log_files import open_folder

logger = logging.getLogger(__name__)

FOLDER = "cv_factory_alerts"
#: What alerters of ZenML and others raise; ours raise ``DeliveryError``.
_ALERTER_ERRORS = (RuntimeError, ValueError, TypeError, OSError)


@runtime_checkable
class Alerter(Protocol):
    """An alerter of ours, such as the flavor ``webhook``, which is given more than a text."""

    def deliver(self, message: AlertMessage) -> None:
        """Deliver a message, with retries.

        Raises:
            DeliveryError: The receiver is down, or refuses it (``RefusedAlertError``).
        """


def send_alerts(alerts: Sequence[Alert], model_name: str) -> None:
    """Announce what changes an incident: it begins, worsens or ends; repetitions say nothing.

    Where nothing can be delivered now, that is logged, and the messages wait: what called this goes
    on.

    Args:
        alerts: Secrets in their texts are masked.
        model_name: Becomes the label ``model``; empty for none.
    """
    _send([_prepare(alert, model_name) for alert in alerts], is_event=False)


def send_event(alert: Alert, model_name: str = "") -> bool:
    """Announce also what changes no incident, such as a text; return whether it was sent."""
    return _send([_prepare(alert, model_name)], is_event=True)


def deliver_pending() -> list[Outcome]:
    """Deliver the messages that wait, in their order; return how each ended.

    Raises:
        ArtifactError: The log cannot be read or written.
        DeliveryError: The receiver is still down; what it did not take waits on.
    """
    log = open_alert_log()
    outcomes: list[Outcome] = []
    with _delivery_lock():
        pending = log.pending()
        deliver = _select_alerter() if pending else None
        try:
            for entry in pending:
                outcomes.append(_deliver(entry, deliver))
                log.mark(entry.number, outcomes[-1])
        finally:
            _write_metrics(log)
    return outcomes


def _deliver(entry: LoggedAlert, deliver: Callable[[AlertMessage], None] | None) -> Outcome:
    """Deliver a message, if there is an alerter, and return how that ended."""
    if deliver is None:
        return "unsent"
    try:
        deliver(entry.message)
    except RefusedAlertError as error:
        logger.error("Alert %d is not delivered: %s", entry.number, error)
        return "refused"
    return "sent"


def _write_metrics(log: AlertLog) -> None:
    """Write what waits and what is open, where the environment names a folder."""
    folder = metrics_folder()
    if folder is None:
        return
    registry = CollectorRegistry()
    text = "Messages that wait for their receiver"
    Gauge("cv_factory_alerts_waiting", text, registry=registry).set(log.n_waiting)
    is_open = Gauge("cv_factory_incidents", "Open incidents", ("severity",), registry=registry)
    counts = Counter(entry.message.alert.severity for entry in log.open_incidents())
    for severity in get_args(Severity):
        is_open.labels(severity).set(counts[severity])
    write_metrics(folder, "cv_factory_alerts", registry)


def open_alert_log() -> AlertLog:
    """Return the alert log of the active stack."""
    return AlertLog(open_folder(Client().active_stack.artifact_store, FOLDER))


def _send(alerts: Sequence[Alert], *, is_event: bool) -> bool:
    """Log and deliver; return whether nothing waits any more, and nothing was refused."""
    try:
        log, now = open_alert_log(), datetime.now(UTC)
        entries = [log.add(alert, now, is_event=is_event) for alert in alerts]
        if not any(entries) and not log.n_waiting:
            return True
        return "refused" not in deliver_pending()
    except DeliveryError as error:
        logger.error("An alert waits until its receiver takes it: %s", error)
    except (CVFactoryError, *_ALERTER_ERRORS) as error:
        titles = "; ".join(alert.summary for alert in alerts)
        logger.error("Alerts are not sent (%s): %s", redact(str(error)), titles)
    return False


def _prepare(alert: Alert, model_name: str) -> Alert:
    labels = {"model": model_name} if model_name else {}
    return replace(
        alert,
        summary=redact(alert.summary),
        detail=redact(alert.detail),
        labels={**labels, **alert.labels},
    )


def _select_alerter() -> Callable[[AlertMessage], None] | None:
    """Return what delivers a message through the active stack, None where it has no alerter."""
    alerter: Any = Client().active_stack.alerter
    if alerter is None:
        return None
    if isinstance(alerter, Alerter):
        return alerter.deliver

    def post(message: AlertMessage) -> None:
        try:
            is_posted = alerter.post(message.render_text())
        except _ALERTER_ERRORS as error:
            raise DeliveryError(
                f"The alerter {alerter.name} failed: {redact(str(error))}"
            ) from None
        if not is_posted:
            raise DeliveryError(f"The alerter {alerter.name} did not post it: see the log above.")

    return post


@contextmanager
def _delivery_lock() -> Iterator[None]:
    """Keep two processes of this machine from delivering the same message."""
    folder = Path(GlobalConfiguration().local_stores_path) / "alerts"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "delivery"):
        yield
