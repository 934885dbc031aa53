"""Runs the validation pipeline on the active stack and prints the verdict on the data."""

import click
from zenml.client import Client

from cli.console import quiet_tracebacks
from cli.training_run import pipeline_options
from cv_factory.config import ValidationPipelineConfig
from cv_factory.data.report import DataReport
from cv_factory.errors import CVFactoryError
from stacks.failures import run_failures


def run_validation(
    config: ValidationPipelineConfig, source_fingerprint: str, *, debug: bool
) -> int:
    """Run the pipeline, print what it found and return the exit code.

    Raises:
        CVFactoryError: A step failed, or the data was refused.
    """
    from pipelines.validation import validation

    if not debug:
        quiet_tracebacks()
    configured = validation.with_options(**pipeline_options(config))
    try:
        run = configured(config, source_fingerprint)
    except run_failures() as error:
        if debug:
            raise
        raise CVFactoryError(f"The run failed: {error} (--debug shows the traceback)") from error
    if run is None or not run.status.is_finished:
        click.echo("The run was submitted; watch it in the dashboard.")
        return 0
    steps = Client().get_pipeline_run(run.id).steps
    report: DataReport = steps["validate_data"].outputs["data_report"][0].load()
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
