"""Runs batch inference and prints what was scored and where the Parquet files are."""

import click

from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.preparation import Checks, check_source
from cli.session import activate_stack, open_version
from cv_factory.config.batch_inference import BatchInferencePipelineConfig
from cv_factory.inference.batch_predictions import BatchPredictions


def run(config: BatchInferencePipelineConfig, zenml: ZenMLConfig, options: RunOptions) -> int:
    """Score images with the version in production, or ``model.version``; return the exit code.

    Raises:
        CVFactoryError: There is no such version, it failed a gate, or a check or the step failed.
    """
    checks = Checks()
    checks.run(lambda: check_source(config.data, labelled=False))
    checks.run(lambda: activate_stack(options.stack))
    checks.finish()
    from registry.versions import PREDICTOR, linked_artifact

    registry, version = open_version(config.model.name, config.model.version)
    if config.model.version is None:
        registry.require_deployable(version)
    else:
        registry.require_fit(version.number)
    predictor = linked_artifact(version, PREDICTOR)
    if options.dry_run:
        stage = version.stage or "no stage"
        click.echo(
            f"Would score source {config.data.source!r} with {registry.model_name} version "
            f"{version.number} ({stage}).\nNothing was changed (--dry-run)."
        )
        return 0
    from cli.execution import run_to_end
    from pipelines.batch_inference import batch_inference
    from registry.artifact_loader import load_output

    arguments = (config, str(predictor.id), registry.model_name, version.number)
    finished_run = run_to_end(batch_inference, zenml, *arguments, debug=options.debug)
    if finished_run is not None:
        click.echo(
            describe_predictions(load_output(finished_run, "predict_batch", BatchPredictions))
        )
    return 0


def describe_predictions(predictions: BatchPredictions) -> str:
    """Return the number of scored images, in all and per class, and the output folder."""
    n_scored = predictions.n_rows - predictions.n_quarantined
    n_unfamiliar = predictions.n_unfamiliar
    unfamiliar = (
        []
        if n_unfamiliar is None
        else [f"Unfamiliar: {n_unfamiliar:,} images, unlike everything the model was trained on."]
    )
    counts = [f"  {name}: {n:,}" for name, n in predictions.class_counts.items() if n]
    return "\n".join(
        [
            f"\nScored: {n_scored:,} images of {predictions.source} with "
            f"{predictions.model_name} version {predictions.model_version}; "
            f"{predictions.n_quarantined:,} quarantined, each with its reason.",
            *counts,
            *unfamiliar,
            *(f"Notice: {notice}" for notice in predictions.notices),
            f"Parquet: {predictions.folder}",
        ]
    )
