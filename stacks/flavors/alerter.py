"""Base of our alerters: a text that other code posts waits for its receiver as an alert does."""

import sys
from abc import abstractmethod
from pathlib import Path

from zenml.alerter.base_alerter import BaseAlerter, BaseAlerterStepParameters

from cv_factory.errors import StackError
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.alert_message import AlertMessage


class LoggedAlerter(BaseAlerter):
    """Alerter of the active stack whose messages are logged before they are delivered."""

    @abstractmethod
    def deliver(self, message: AlertMessage) -> None:
        """Deliver a message, with retries.

        Raises:
            DeliveryError: The receiver is down, or refuses it (``RefusedAlertError``).
        """

    def post(self, message: str, params: BaseAlerterStepParameters | None = None) -> bool:
        """Post a text; return False while it waits for its receiver.

        Args:
            message: The first line is the summary.
            params: None are known.
        """
        # ZenML adds the project only while it loads a flavor.
        root = str(Path(__file__).resolve().parents[2])
        if root not in sys.path:
            sys.path.append(root)
        from registry.alerts import send_event

        summary, _, detail = message.strip().partition("\n")
        return send_event(Alert("message", "resolved", "info", summary, detail.strip()))

    def ask(self, question: str, params: BaseAlerterStepParameters | None = None) -> bool:
        """Refuse every question: no reply can reach us, and ZenML's default is yes.

        Raises:
            StackError: Always.
        """
        raise StackError(
            f"The alerter {self.name} cannot be asked for an approval: approve a version with "
            "python run.py approve, or use ZenML's Slack alerter."
        )
