"""The Registration: what became of one evaluated predictor, and on which evidence."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.files import canonical_json
from cv_factory.evaluation.gate_verdict import GateVerdict, all_passed

_MARKDOWN, _HTML = "model_card.md", "model_card.html"
_PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Registration(Artifact):
    """A registered model version, its verdicts, its lineage and its card.

    Attributes:
        model_name: Name of the registered model.
        version: Number of the version, from 1.
        stage: ``none``, ``staging``, ``production`` or ``archived``.
        is_new: Whether this run made the version; an equal predictor is registered once.
        predictor_fingerprint: Which predictor it is.
        verdicts: What each gate said.
        lineage: Git commit, hashes, stack, packages: what made the predictor.
        provenance: In-toto statement about the predictor.
        card_markdown: The model card.
        card_html: The same as a self-contained page.
    """

    KIND: ClassVar[str] = "registration"
    FORMAT_VERSION: ClassVar[int] = 2

    model_name: str
    version: int
    stage: str
    is_new: bool
    predictor_fingerprint: str
    verdicts: tuple[GateVerdict, ...]
    lineage: Mapping[str, str]
    provenance: Mapping[str, Any]
    card_markdown: str
    card_html: str

    @property
    def gates_passed(self) -> bool:
        """Whether no gate failed."""
        return all_passed(self.verdicts)

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        (directory / _MARKDOWN).write_text(self.card_markdown, encoding="utf-8")
        (directory / _HTML).write_text(self.card_html, encoding="utf-8")
        statement = canonical_json(dict(self.provenance))
        (directory / _PROVENANCE).write_text(statement, encoding="utf-8")
        return {_MARKDOWN: None, _HTML: None, _PROVENANCE: None}

    def _header(self) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "version": self.version,
            "stage": self.stage,
            "is_new": self.is_new,
            "predictor_fingerprint": self.predictor_fingerprint,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "lineage": dict(self.lineage),
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        verdicts = tuple(GateVerdict(**verdict) for verdict in body.pop("verdicts"))
        return cls(
            **body,
            verdicts=verdicts,
            provenance=json.loads((directory / _PROVENANCE).read_text(encoding="utf-8")),
            card_markdown=(directory / _MARKDOWN).read_text(encoding="utf-8"),
            card_html=(directory / _HTML).read_text(encoding="utf-8"),
        )
