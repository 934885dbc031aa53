"""Step ``validate_data``: check dataset and split before anything is fitted on them."""

from typing import Annotated

from zenml import save_artifact, step
from zenml.client import Client

import materializers  # noqa: F401  (registers them)
from cv_factory.config.validation import ValidationConfig
from cv_factory.curation.data_issues import DataIssues
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.data.validation.report import DataReport
from steps.caching import depends_on


@step(
    experiment_tracker=True,
    cache_policy=depends_on("cv_factory.data.validation.great_expectations"),
)
def validate_data(
    dataset: ImageDataset,
    split: Split,
    config: ValidationConfig,
    data_issues: DataIssues | None = None,
) -> Annotated[DataReport, "data_report"]:
    """Validate through the stack's data validator; a failed expectation stops the run."""
    from registry.artifact_loader import load_artifact
    from registry.mlflow.tracking import log_report

    client = Client()
    validator = client.active_stack.data_validator
    assert validator is not None, "the command line has checked the stack"
    reference = None
    if config.reference:
        reference = load_artifact(client.get_artifact_version(config.reference), ImageDataset)
    report: DataReport = validator.data_validation(
        dataset, reference, split=split, config=config, data_issues=data_issues
    )
    log_report(report)
    if not report.ok:
        # A step that fails stores no outputs, and the report is what its user needs.
        save_artifact(report, "data_report")
    return report.require_ok()
