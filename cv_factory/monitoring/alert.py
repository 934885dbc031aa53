"""Alert: what people are told of an incident, once when it begins and once when it ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: From the least on.
Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True)
class Alert:
    """Message about one incident.

    Attributes:
        incident: Key of the incident, the same in every message about it, such as
            ``drift/cv_factory/confidence``.
        status: ``firing`` when it begins, ``resolved`` when it ends.
        severity: ``critical`` for what harms clients now.
        summary: One line.
        detail: What happened, on which evidence, and what to do.
        labels: Such as ``model`` and ``version``: few values, no secrets.
    """

    incident: str
    status: Literal["firing", "resolved"]
    severity: Severity
    summary: str
    detail: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
