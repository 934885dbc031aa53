"""Stores a Reference for monitoring, with the measured errors of its estimators."""

from typing import Any, ClassVar

from zenml.metadata.metadata_types import MetadataType

from cv_factory.inference.reference import Reference
from materializers.artifact import ArtifactMaterializer


class ReferenceMaterializer(ArtifactMaterializer):
    """``test.npz``, ``validation.npz``, ``reference.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Reference,)

    def facts(self, data: Reference) -> dict[str, MetadataType]:
        """Count images, and give each estimator's largest error."""
        errors: dict[str, float] = {}
        for row in data.estimator_errors:
            errors[row.estimator] = max(errors.get(row.estimator, 0.0), abs(row.error))
        return {
            "predictor_fingerprint": data.predictor_fingerprint,
            "n_test_images": len(data.test),
            "n_validation_images": len(data.validation),
            "test_accuracy": data.test.accuracy,
            **{f"largest_error_of_{name}": error for name, error in errors.items()},
        }
