"""Pipeline ``validation``: check whether images are fit to train on."""

from zenml import pipeline

from cv_factory.config.training import ValidationPipelineConfig
from steps.ingest import ingest
from steps.split import split
from steps.validate_data import validate_data


@pipeline(name="validation")
def validation(config: ValidationPipelineConfig, source_fingerprint: str) -> None:
    """Validate the configured images; a training run with the same settings reuses the steps."""
    dataset = ingest(config.data, source_fingerprint)
    parts = split(dataset, config.split)
    validate_data(dataset, parts, config.validation)
