"""Finding: what one detector says of one window, and what it could not have seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["silent", "alarm", "not_enough_evidence"]
#: What an alarm says: ``harm`` alone rests on labels, and may act where the configuration lets it.
Kind = Literal["quality", "drift", "performance", "harm"]


@dataclass(frozen=True)
class Finding:
    """Verdict of a detector.

    Attributes:
        detector: Name of its module.
        kind: What an alarm says.
        status: ``not_enough_evidence`` is no pass.
        summary: One sentence for people, with the figures that decided.
        n: Number of predictions, or of labels for ``harm``, that it rests on.
        evidence: Compared with ``threshold``: an e-value, a statistic or a share; None if none.
        threshold: Alarm at or above it; None if the detector only explains.
        smallest_detectable: What this window could not have shown, in one sentence.
        details: Further figures, JSON-serializable.
    """

    detector: str
    kind: Kind
    status: Status
    summary: str
    n: int
    evidence: float | None = None
    threshold: float | None = None
    smallest_detectable: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Word for people: the status, or ``explains`` for one that has no threshold."""
        is_explanation = self.status == "silent" and self.threshold is None
        return "explains" if is_explanation else self.status.replace("_", " ")
