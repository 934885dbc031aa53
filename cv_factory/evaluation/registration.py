"""The Registration: what became of one evaluated predictor, and on which evidence."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cv_factory.artifacts.files import canonical_json, read_header, write_header
from cv_factory.evaluation.gates import GateVerdict, all_passed

_KIND, _VERSION = "registration", 2
_MARKDOWN, _HTML = "model_card.md", "model_card.html"
_PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Registration:
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

    def save(self, directory: Path) -> None:
        """Write ``registration.json``, ``provenance.json`` and the model card."""
        (directory / _MARKDOWN).write_text(self.card_markdown, encoding="utf-8")
        (directory / _HTML).write_text(self.card_html, encoding="utf-8")
        statement = canonical_json(dict(self.provenance))
        (directory / _PROVENANCE).write_text(statement, encoding="utf-8")
        body = {
            "model_name": self.model_name,
            "version": self.version,
            "stage": self.stage,
            "is_new": self.is_new,
            "predictor_fingerprint": self.predictor_fingerprint,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "lineage": dict(self.lineage),
        }
        write_header(directory, _KIND, _VERSION, body, [_MARKDOWN, _HTML, _PROVENANCE])

    @classmethod
    def load(cls, directory: Path) -> "Registration":
        """Read a registration.

        Raises:
            ArtifactError: It is damaged, incomplete or of another format version.
        """
        body = read_header(directory, _KIND, _VERSION)
        verdicts = tuple(GateVerdict(**verdict) for verdict in body.pop("verdicts"))
        return cls(
            **body,
            verdicts=verdicts,
            provenance=json.loads((directory / _PROVENANCE).read_text(encoding="utf-8")),
            card_markdown=(directory / _MARKDOWN).read_text(encoding="utf-8"),
            card_html=(directory / _HTML).read_text(encoding="utf-8"),
        )
