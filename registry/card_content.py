"""Content of a model card: of a candidate being registered, or of a version as it is now.

Approval and promotion come after registration, so the card that a run stores shows neither. The
present card is drawn from the same stored artifacts, and from the registry.
"""

from collections.abc import Mapping, Sequence

from zenml.models import ModelVersionResponse

from cv_factory.data.dataset import ImageDataset
from cv_factory.evaluation.gate_verdict import GateVerdict
from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.samples import sample_grid
from cv_factory.evaluation.plots.training_curves import training_curves
from cv_factory.evaluation.reports.model_card import CardContent, DataCheck
from cv_factory.export.golden_samples import choose_easy_and_hard
from cv_factory.inference.predictor import Contract
from cv_factory.training.stability import describe_instability
from registry import versions
from registry.audit.log import AuditEntry
from registry.candidate import RegistrationCandidate, load_candidate
from registry.model_registry import ModelRegistry
from registry.provenance.statement import package_lineage

_N_SAMPLES = 40


def load_card_content(registry: ModelRegistry, number: int) -> CardContent:
    """Return the card content of a version with its present stage, verdicts and approver.

    Raises:
        RegistryError: There is no such version.
        ArtifactError: One of its artifacts, or its run, was deleted or is damaged.
    """
    version, standing = registry.get_version(number), registry.gate_standing(number)
    return build_card_content(
        load_candidate(version),
        version,
        version.stage or "none",
        standing.verdicts,
        versions.version_lineage(version),
        registry.approval(version),
        standing.overrides,
    )


def build_card_content(
    candidate: RegistrationCandidate,
    version: ModelVersionResponse,
    stage: str,
    verdicts: Sequence[GateVerdict],
    lineage: Mapping[str, str],
    approval: AuditEntry | None,
    overrides: Sequence[AuditEntry],
) -> CardContent:
    """Return the card content of a version with the given stage, verdicts and decisions."""
    dataset = candidate.dataset
    return CardContent(
        model_name=version.model.name,
        version=str(version.number),
        stage=stage,
        description=_describe_task(dataset),
        model=_describe_model(candidate),
        data={
            "source": dataset.source,
            "images": len(dataset),
            "left out as unreadable": len(dataset.unreadable),
            **{f"{name} images": n for name, n in candidate.split.sizes.items()},
        },
        data_verdict="passed" if candidate.report.ok else "failed",
        data_checks=[
            DataCheck(r.name, r.verdict, f"{r.message} Found {r.observed}, allowed {r.limit}.")
            for r in candidate.report.expectations
        ],
        training=_training(candidate),
        evaluation=candidate.evaluation,
        verdicts=verdicts,
        lineage={k: v for k, v in lineage.items() if not k.startswith(versions.PACKAGE_PREFIX)},
        packages=package_lineage(lineage),
        approver=_format_decision(approval) if approval else None,
        overrides=[describe_override(override) for override in overrides],
        statements=candidate.card,
        estimator_errors=candidate.reference.estimator_errors if candidate.reference else (),
        warnings=_warnings(candidate),
        pictures=_pictures(candidate),
    )


def _describe_model(candidate: RegistrationCandidate) -> dict[str, str | float]:
    from cv_factory.evaluation.graph_size import count

    trained, contract = candidate.trained, candidate.predictor.contract
    return {
        "architecture": trained.config.name,
        **_describe_backbone(contract),
        "parameters": count(candidate.predictor.graph)[0],
        **({"best epoch": trained.best_epoch} if len(trained.history) > 1 else {}),
        **({} if trained.precision == "fp32" else {"trained in": trained.precision}),
        "size of the ONNX graph": f"{len(candidate.predictor.graph) / 1e3:,.0f} kB",
        "precision": contract.precision,
        "PCA components for drift": contract.n_features,
        **_describe_calibration(contract),
        "unfamiliar images are marked": "no" if contract.familiarity is None else "yes",
    }


def _describe_task(dataset: ImageDataset) -> str:
    height, width, channels = dataset.image_shape
    classes = ", ".join(dataset.class_names[:20]) + (" …" if len(dataset.class_names) > 20 else "")
    return (
        f"Classifies {'gray' if channels == 1 else 'RGB'} images of {height}x{width} into "
        f"{len(dataset.class_names)} classes: {classes}."
    )


def describe_override(override: AuditEntry) -> str:
    """Return the gate that an entry overrides, who did so, when and why, in one line."""
    return f"{override.detail['verdict']['gate']}, by {_format_decision(override)}"


def _format_decision(entry: AuditEntry) -> str:
    return f"{entry.who} ({entry.time_text} UTC, audit log entry {entry.number}): {entry.why}"


def _warnings(candidate: RegistrationCandidate) -> list[str]:
    """Return what a person should know before deciding, a sentence each."""
    trained, check = candidate.trained, candidate.predictor.contract.calibration
    instability = describe_instability(trained.history) if len(trained.history) > 1 else ""
    texts = (instability, check.warning if check else "", *candidate.report.notices)
    return [text for text in texts if text]


def _describe_backbone(contract: Contract) -> dict[str, str | float]:
    """Return the pretrained backbone, its license and the SHA-256 of its weights, if any."""
    source = contract.backbone
    if source is None:
        return {}
    tuned = (
        f", fine-tuned for {source.fine_tuned_epochs} epochs in {source.fine_tuned_precision}"
        if source.fine_tuned_epochs
        else ""
    )
    size = f"{source.input_size}x{source.input_size} pixels"
    return {
        "backbone": f"{source.name}, pretrained, {size}{tuned}",
        "license of its weights": source.license,
        "SHA-256 of its weights": source.weights_sha256,
    }


def _describe_calibration(contract: Contract) -> dict[str, str | float]:
    """Return the temperature and, if it was fitted, how it held up on held-out images."""
    check, temperature = contract.calibration, contract.temperature
    if check is None:
        return {"calibration temperature": temperature}
    (loss, new_loss), (error, new_error) = check.log_loss, check.calibration_error
    folds = (
        f"log loss {loss:.4f} → {new_loss:.4f}, calibration error {error:.2%} → {new_error:.2%} "
        f"on held-out folds of {check.n_images} validation images, {check.n_errors} misclassified"
    )
    return {"calibration temperature": temperature, "calibration check": folds}


def _training(candidate: RegistrationCandidate) -> dict[str, str]:
    """Return the settings of model and training as text, by ``section.key``."""
    model = candidate.trained.config.model_dump(mode="json")
    train = candidate.settings.model_dump(mode="json")
    sections = {"model": model, "train": train}
    return {
        f"{s}.{key}": str(value) for s, values in sections.items() for key, value in values.items()
    }


def _pictures(candidate: RegistrationCandidate) -> dict[str, bytes]:
    pictures = {"Test images, easy and hard": _test_images(candidate)}
    if len(candidate.trained.history) > 1:
        pictures["Training"] = training_curves(
            candidate.trained.history, candidate.trained.best_epoch
        )
    return pictures


def _test_images(candidate: RegistrationCandidate) -> bytes:
    """Draw easy and hard test images of all classes under their class, and what it was taken for.

    The candidate's predictions are in the order of the test split.
    """
    predictions = candidate.evaluation.predictions
    names = writable_names(candidate.dataset.class_names)
    chosen = choose_easy_and_hard(predictions.probabilities, predictions.labels)[:_N_SAMPLES]
    titles = [
        names[label] if label == predicted else f"{names[label]} → {names[predicted]}"
        for label, predicted in zip(
            predictions.labels[chosen], predictions.predicted[chosen], strict=True
        )
    ]
    return sample_grid(candidate.dataset.images[candidate.split.test[chosen]], titles)
