"""CollectedPredictions: which predictions a monitoring run looks at."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from cv_factory.artifacts.artifact import Artifact


@dataclass(frozen=True)
class CollectedPredictions(Artifact):
    """Span of predictions, and the account of collecting them; the rows stay where they are.

    Attributes:
        source: Description of what is read, for people.
        start: Time of the first, ISO 8601 (UTC); None for no bound.
        end: Time before which the last is; None for no bound.
        remarks: What a reader should know of how they were collected, one sentence each.
    """

    KIND: ClassVar[str] = "collected_predictions"

    source: str
    start: str | None
    end: str | None
    remarks: tuple[str, ...] = ()

    def _header(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        return cls(**{**body, "remarks": tuple(body["remarks"])})
