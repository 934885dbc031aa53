"""AlertMessage: an alert as it is delivered, and its forms in plain text and JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.alert import Alert


class DeliveryError(CVFactoryError):
    """A receiver did not take an alert: it is delivered later."""


class RefusedAlertError(DeliveryError):
    """A receiver refuses this very alert, and would again: it is not delivered."""


@dataclass(frozen=True)
class AlertMessage:
    """One delivery of an alert; a repeated one has the same ``id``.

    Attributes:
        id: Unique; receivers tell repeated deliveries by it.
        time: When this was said.
        started: When the incident began.
        alert: The alert.
    """

    id: str
    time: datetime
    started: datetime
    alert: Alert

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-serializable form; ``schema`` is raised when a field changes."""
        return {
            "schema": 1,
            "id": self.id,
            "time": self.time.isoformat(),
            "started": self.started.isoformat(),
            **asdict(self.alert),
            "labels": dict(self.alert.labels),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AlertMessage":
        """Return a message from its JSON-serializable form."""
        names = ("incident", "status", "severity", "summary", "detail", "labels")
        return cls(
            id=values["id"],
            time=datetime.fromisoformat(values["time"]),
            started=datetime.fromisoformat(values["started"]),
            alert=Alert(**{name: values[name] for name in names}),
        )

    @property
    def title(self) -> str:
        """One line, such as the subject of an e-mail."""
        state = "resolved" if self.alert.status == "resolved" else self.alert.severity
        return f"[{state.upper()}] {' '.join(self.alert.summary.split())}"

    def render_text(self) -> str:
        """Return the message for people, in plain text."""
        labels = [f"{name}: {value}" for name, value in self.alert.labels.items()]
        facts = [*labels, f"incident: {self.alert.incident}", f"since: {self.started:%F %T} UTC"]
        return "\n\n".join(filter(None, (self.title, self.alert.detail, "\n".join(facts))))
