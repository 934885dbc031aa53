"""Pipeline ``validation``: check whether images are fit to train on."""

from zenml import pipeline

from cv_factory.config.training import ValidationPipelineConfig
from steps.compute_features import compute_features
from steps.export_backbone import export_backbone
from steps.find_data_issues import find_data_issues
from steps.ingest import ingest
from steps.split import split
from steps.validate_data import validate_data


@pipeline(name="validation")
def validation(config: ValidationPipelineConfig, source_fingerprint: str) -> None:
    """Validate the configured images; a training run with the same settings reuses the steps."""
    dataset = ingest(config.data, source_fingerprint)
    parts = split(dataset, config.split)
    issues = None
    if config.features is not None:
        backbone = export_backbone(config.features.backbone, config.features.input_size)
        features = compute_features(dataset, backbone, config.features.horizontal_flip)
        issues = find_data_issues(dataset, parts, features)
    validate_data(dataset, parts, config.validation, issues)
