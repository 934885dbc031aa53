"""The dataset and its split are validated, before anything is fitted on them."""

from typing import Annotated

from zenml import save_artifact, step
from zenml.client import Client

import materializers  # noqa: F401  (registers them)
from cv_factory.config import ValidationConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.report import DataReport
from cv_factory.data.split import Split
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.data.quality"))
def validate_data(
    dataset: ImageDataset, split: Split, config: ValidationConfig
) -> Annotated[DataReport, "data_report"]:
    """Validate through the stack's data validator; a failed expectation stops the run."""
    validator = Client().active_stack.data_validator
    assert validator is not None, "the command line has checked the stack"
    report: DataReport = validator.data_validation(dataset, split=split, config=config)
    if not report.ok:
        # A step that fails stores no outputs, and the report is what its user needs.
        save_artifact(report, "data_report")
    return report.require_ok()
