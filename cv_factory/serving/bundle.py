"""Bundle: a predictor, its provenance and its serving configuration, as one directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.files import canonical_json
from cv_factory.config.problems import describe_error
from cv_factory.config.serving import IS_STORED, ServingConfig
from cv_factory.errors import ArtifactError
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import Reference

_PREDICTOR, _REFERENCE = "predictor", "reference"
_SERVING, _CARD = "serving.json", "card.html"


@dataclass(frozen=True)
class Bundle(Artifact):
    """Predictor, model card, reference and serving settings: what a service starts from.

    Attributes:
        predictor: The predictor.
        serving: Serving configuration, without secrets.
        model_name: Name of the registered model.
        version: Number of the version, as text; ``0`` for a predictor that is not registered.
        created: Time at which the bundle was built: ISO 8601, UTC.
        run_id: Id of the pipeline run that trained the predictor.
        registration_id: Id of the registered version.
        git_commit: Git commit of the code that trained it.
        fingerprints: SHA-256 of the inputs, by name.
        metrics: Metrics on the test split, by name.
        overrides: Gates that the predictor failed and that a person overrode, a line each.
        card_html: Model card as a self-contained HTML page.
        reference: What ``monitoring`` compares predictions with; None if an earlier release trained
            the predictor.
    """

    KIND: ClassVar[str] = "bundle"
    PARTS: ClassVar[Mapping[str, type[Artifact]]] = {
        _PREDICTOR: Predictor,
        _REFERENCE: Reference,
    }
    OPTIONAL_PARTS: ClassVar[frozenset[str]] = frozenset({_REFERENCE})

    predictor: Predictor
    serving: ServingConfig
    model_name: str
    version: str
    created: str
    run_id: str | None = None
    registration_id: str | None = None
    git_commit: str | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    card_html: str | None = None
    reference: Reference | None = None

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        (directory / _PREDICTOR).mkdir()
        self.predictor.save(directory / _PREDICTOR)
        if self.reference is not None:
            (directory / _REFERENCE).mkdir()
            self.reference.save(directory / _REFERENCE)
        serving = canonical_json(self.serving.model_dump(mode="json"))
        (directory / _SERVING).write_text(serving, encoding="utf-8")
        files: dict[str, str | None] = {_SERVING: None}
        if self.card_html is not None:
            (directory / _CARD).write_text(self.card_html, encoding="utf-8")
            files[_CARD] = None
        return files

    def _header(self) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "version": self.version,
            "created": self.created,
            "run_id": self.run_id,
            "registration_id": self.registration_id,
            "git_commit": self.git_commit,
            "fingerprints": dict(self.fingerprints),
            "metrics": dict(self.metrics),
            "predictor": self.predictor.fingerprint,
            "has_card": self.card_html is not None,
            # Keeps the bytes of bundles without.
            **({"overrides": list(self.overrides)} if self.overrides else {}),
            **({"has_reference": True} if self.reference is not None else {}),
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        predictor = Predictor.load(directory / _PREDICTOR)
        if body.pop("predictor", None) != predictor.fingerprint:
            raise ArtifactError(f"{directory} holds another predictor than bundle.json says.")
        has_card = body.pop("has_card", False)
        card = (directory / _CARD).read_text(encoding="utf-8") if has_card else None
        has_reference = body.pop("has_reference", False)
        reference = Reference.load(directory / _REFERENCE) if has_reference else None
        if reference and reference.predictor_fingerprint != predictor.fingerprint:
            raise ArtifactError(f"{directory / _REFERENCE} is of another predictor.")
        serving = read_serving(directory / _SERVING)
        return cls(predictor, serving, card_html=card, reference=reference, **body)


def read_serving(path: Path) -> ServingConfig:
    """Read the serving configuration of a bundle.

    Raises:
        ArtifactError: The file is not a valid configuration.
    """
    try:
        stored = ServingConfig.model_validate_json(path.read_bytes(), context={IS_STORED: True})
    except ValidationError as error:
        problems = describe_error(error)
        raise ArtifactError(f"{path} is not a valid serving configuration: {problems}") from None
    return stored.lower_limits()
