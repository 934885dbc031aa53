"""Runs the validation pipeline and prints the verdict on the data."""

from functools import partial

import click

from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.preparation import (
    Checks,
    collect_lineage,
    describe_lineage,
    fingerprint_source,
    resolve_reference,
)
from cli.session import activate_stack
from cv_factory.config.training import ValidationPipelineConfig
from cv_factory.data.validation.report import DataReport
from cv_factory.features.backbones import check_backbone
from cv_factory.reporting.numbers import format_count


def run(config: ValidationPipelineConfig, zenml: ZenMLConfig, options: RunOptions) -> int:
    """Validate the data, or print the plan, and return the exit code.

    Raises:
        CVFactoryError: A check or a step failed, or the data was refused.
    """
    checks = Checks()
    source_fingerprint = checks.run(lambda: fingerprint_source(config.data))
    if config.features is not None:
        checks.run(partial(check_backbone, config.features.backbone))
    stack = checks.run(lambda: activate_stack(options.stack))
    checks.finish()
    assert stack is not None
    config = config.model_copy(update={"validation": resolve_reference(config.validation)})
    from cli.execution import run_to_end
    from cli.run_plan import print_plan
    from pipelines.validation import validation
    from registry.artifact_loader import load_output

    arguments = (config, source_fingerprint)
    if options.dry_run:
        details = [describe_lineage(collect_lineage(config, stack))]
        print_plan(validation, zenml, stack, *arguments, details=details)
        return 0
    finished_run = run_to_end(validation, zenml, *arguments, debug=options.debug)
    if finished_run is not None:
        click.echo(describe_report(load_output(finished_run, "validate_data", DataReport)))
    return 0


def describe_report(report: DataReport) -> str:
    """Return the verdict, and one line per expectation that was not met and per notice."""
    passed = sum(result.success for result in report.expectations)
    summary = (
        f"\n{report.verdict}: {report.n_images:,} images in {len(report.class_counts)} classes, "
        f"{passed} of {len(report.expectations)} expectations met, "
        f"{len(report.unreadable)} images left out as unreadable."
    )
    remarks = [f"  {remark}" for remark in report.remarks]
    if n := report.issue_counts.get("label"):
        words = format_count(n, "doubtful label")
        remarks.append(f"  {words}: python run.py labels suspicious --out FILE")
    return "\n".join([summary, *remarks, "Report: artifact 'data_report' in the dashboard."])
