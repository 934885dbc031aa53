"""Runs the training pipeline and prints its summary."""

from cli.options import RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.preparation import check_source, collect_lineage, describe_lineage, resolve_reference
from cli.session import activate_stack
from cv_factory.config.training import TrainingPipelineConfig


def run(config: TrainingPipelineConfig, zenml: ZenMLConfig, options: RunOptions) -> int:
    """Train, or print the plan, and return the exit code: 3 if a gate failed.

    Raises:
        CVFactoryError: A check, a step or a gate refused.
    """
    _check_extras(config)
    source_fingerprint = check_source(config.data)
    stack = activate_stack(options.stack)
    config = config.model_copy(update={"validation": resolve_reference(config.validation)})
    from cli.execution import run_to_end
    from cli.run_plan import print_plan
    from cli.summary import print_summary
    from pipelines.training import training

    lineage = collect_lineage(config, stack)
    arguments = (config, source_fingerprint, lineage)
    if options.dry_run:
        details = (describe_lineage(lineage), _describe_search(config))
        print_plan(training, zenml, stack, *arguments, details=details)
        return 0
    finished_run = run_to_end(training, zenml, *arguments, debug=options.debug)
    if finished_run is None:
        return 0
    return 0 if print_summary(finished_run).gates_passed else 3


def _check_extras(config: TrainingPipelineConfig) -> None:
    """Refuse a model or a plot whose packages are not installed."""
    from cv_factory.models import check_available
    from cv_factory.transforms.embedding import check_installed

    check_available(config.model)
    if config.transform.umap is not None:
        check_installed()


def _describe_search(config: TrainingPipelineConfig) -> str:
    if config.search is None:
        return "Search: off (the configuration has no section 'search')"
    families = ", ".join(config.search.families)
    return f"Search: on, {config.search.trials} trials among {families}"
