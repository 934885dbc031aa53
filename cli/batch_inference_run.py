"""Runs batch inference on the active stack and prints what was scored, and where the rows lie."""

import click

from cli.execution import run_to_end
from cli.pipeline_config import ZenMLConfig
from cli.session import open_model
from cv_factory.config.batch_inference import BatchInferencePipelineConfig
from cv_factory.inference.batch_predictions import BatchPredictions


def run_batch_inference(
    config: BatchInferencePipelineConfig, zenml: ZenMLConfig, *, dry_run: bool, debug: bool
) -> int:
    """Score with the version in production, or the one that is asked for; return the exit code.

    Raises:
        CVFactoryError: There is no such version, or the step failed.
    """
    from registry.versions import PREDICTOR, get_version_or_production, linked_artifact

    registry = open_model(config.model.name)
    version = get_version_or_production(registry.model_name, config.model.version)
    predictor = linked_artifact(version, PREDICTOR)
    what = f"{registry.model_name} version {version.number} ({version.stage or 'no stage'})"
    if dry_run:
        click.echo(f"Would score source {config.data.source!r} with {what}.")
        click.echo("Nothing was changed (--dry-run).")
        return 0
    from pipelines.batch_inference import batch_inference

    arguments = (config, str(predictor.id), registry.model_name, version.number)
    run = run_to_end(batch_inference, zenml, *arguments, debug=debug)
    if run is not None:
        _print(run.steps["predict_batch"].outputs["predictions"][0].load())
    return 0


def _print(found: BatchPredictions) -> None:
    click.echo(
        f"\nScored: {found.n_rows - found.n_quarantined:,} images of {found.source} with "
        f"{found.model_name} version {found.model_version}; {found.n_quarantined:,} quarantined, "
        "each with its reason."
    )
    for name, count in found.class_counts.items():
        if count:
            click.echo(f"  {name}: {count:,}")
    click.echo(f"Parquet: {found.folder}")
