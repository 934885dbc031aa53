"""Runs the monitoring pipeline and prints the verdict."""

import click

from cli.commands.monitoring import describe_monitoring
from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.session import activate_stack, open_version
from cv_factory.config.monitoring import MonitoringPipelineConfig
from cv_factory.monitoring.report import MonitoringReport

#: Exit code of a run that found an alarm.
ALARM = 4


def run(config: MonitoringPipelineConfig, zenml: ZenMLConfig, options: RunOptions) -> int:
    """Compare a version's predictions with its reference; return the exit code, 4 for an alarm.

    Raises:
        CVFactoryError: There is no such version, nothing logs its predictions, or a step failed.
    """
    activate_stack(options.stack)
    from registry.versions import REFERENCE

    registry, version = open_version(config.model.name, config.model.version)
    name, number = registry.model_name, version.number
    if options.dry_run:
        click.echo(
            f"Would compare the predictions of {name} version {number} with its reference.\n"
            "Nothing was changed (--dry-run)."
        )
        return 0
    from cli.execution import run_to_end
    from pipelines.monitoring import monitoring
    from registry.artifact_loader import load_output

    reference = version.get_artifact(REFERENCE)
    arguments = (config, name, number, str(reference.id) if reference else None)
    finished_run = run_to_end(monitoring, zenml, *arguments, debug=options.debug)
    if finished_run is None:
        return 0
    report = load_output(finished_run, "detect", MonitoringReport)
    click.echo(f"\n{describe_monitoring(report)}")
    return ALARM if report.status == "alarm" else 0
