"""Runs the validation pipeline on the active stack and prints the verdict on the data."""

import click

from cli.execution import run_to_end
from cli.pipeline_config import ZenMLConfig
from cv_factory.config.training import ValidationPipelineConfig
from cv_factory.data.validation.report import DataReport


def run_validation(
    config: ValidationPipelineConfig, zenml: ZenMLConfig, source_fingerprint: str, *, debug: bool
) -> int:
    """Run the pipeline, print what it found and return the exit code.

    Raises:
        CVFactoryError: A step failed, or the data was refused.
    """
    from pipelines.validation import validation

    run = run_to_end(validation, zenml, config, source_fingerprint, debug=debug)
    if run is not None:
        report: DataReport = run.steps["validate_data"].outputs["data_report"][0].load()
        _print_report(report)
    return 0


def _print_report(report: DataReport) -> None:
    met = sum(result.success for result in report.expectations)
    click.echo(
        f"\nPassed: {report.n_images:,} images in {len(report.class_counts)} classes, "
        f"{met} of {len(report.expectations)} expectations met, "
        f"{len(report.unreadable)} images left out as unreadable."
    )
    for result in report.failures:
        click.echo(f"  {result.verdict}: {result.message} Found {result.observed}, "
                   f"allowed {result.limit}.")  # fmt: skip
    click.echo("The report stands in the dashboard, artifact 'data_report'.")
