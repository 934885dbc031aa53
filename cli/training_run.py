"""Runs the training pipeline on the active stack and prints what a person wants to know of it."""

from cli.execution import run_to_end
from cli.pipeline_config import ZenMLConfig
from cli.summary import print_summary
from cv_factory.config.training import TrainingPipelineConfig


def run_training(
    config: TrainingPipelineConfig,
    zenml: ZenMLConfig,
    source_fingerprint: str,
    lineage: dict[str, str],
    *,
    debug: bool,
) -> int:
    """Run the pipeline, print its summary and return the exit code.

    Raises:
        CVFactoryError: A step refused or failed.
    """
    from pipelines.training import training

    run = run_to_end(training, zenml, config, source_fingerprint, lineage, debug=debug)
    if run is None:
        return 0
    return 0 if print_summary(run).gates_passed else 3
