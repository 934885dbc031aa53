"""Checks configuration, data source and stack, then runs a pipeline or prints its plan."""

from typing import cast

from cli.options import ROOT, RunOptions
from cli.pipeline_config import ZenMLConfig, file_schema, split_config
from cli.session import activate_stack
from cv_factory.artifacts.files import fingerprint
from cv_factory.config.batch_inference import BatchInferencePipelineConfig
from cv_factory.config.deployment import DeploymentPipelineConfig
from cv_factory.config.loader import load_config
from cv_factory.config.training import TrainingPipelineConfig, ValidationPipelineConfig
from cv_factory.errors import ConfigError


def run_pipeline(options: RunOptions) -> int:
    """Run what the options ask for; nothing is created before all checks passed.

    Returns:
        The exit code.

    Raises:
        CVFactoryError: A check, a step or a gate refused.
    """
    config, zenml = read_config(options)
    if isinstance(config, DeploymentPipelineConfig):
        activate_stack(options.stack)
        from cli.deployment_run import run_deployment

        return run_deployment(config, zenml, dry_run=options.dry_run, debug=options.debug)
    if isinstance(config, TrainingPipelineConfig):
        _check_extras(config)
    labelled = not isinstance(config, BatchInferencePipelineConfig)
    from cv_factory.data.sources import open_source

    with open_source(config.data, labelled=labelled) as source:
        source_fingerprint = source.fingerprint()
    stack = activate_stack(options.stack)
    if isinstance(config, BatchInferencePipelineConfig):
        from cli.batch_inference_run import run_batch_inference

        return run_batch_inference(config, zenml, dry_run=options.dry_run, debug=options.debug)
    config = _with_reference(config)
    from registry.lineage import git_lineage

    lineage = {
        **git_lineage(ROOT),
        "config": fingerprint(config.fingerprint_fields()),
        "stack": stack,
    }
    if options.dry_run:
        from cli.plan import print_plan

        print_plan(config, zenml, source_fingerprint, lineage, stack)
        return 0
    if isinstance(config, ValidationPipelineConfig):
        from cli.validation_run import run_validation

        return run_validation(config, zenml, source_fingerprint, debug=options.debug)
    from cli.training_run import run_training

    return run_training(config, zenml, source_fingerprint, lineage, debug=options.debug)


def _check_extras(config: TrainingPipelineConfig) -> None:
    """Refuse a model or a plot whose packages are not installed."""
    from cv_factory.models import check_available
    from cv_factory.transforms.embedding import check_installed

    check_available(config.model)
    if config.transform.umap is not None:
        check_installed()


def _with_reference(
    config: TrainingPipelineConfig | ValidationPipelineConfig,
) -> TrainingPipelineConfig | ValidationPipelineConfig:
    """Put the id of the dataset to compare with, if there is one, in the place of its name."""
    if config.validation.reference is None:
        return config
    from registry.stored_datasets import resolve_dataset_id

    found = {"reference": resolve_dataset_id(config.validation.reference)}
    return config.model_copy(update={"validation": config.validation.model_copy(update=found)})


PipelineConfig = (
    TrainingPipelineConfig
    | ValidationPipelineConfig
    | DeploymentPipelineConfig
    | BatchInferencePipelineConfig
)


def read_config(options: RunOptions) -> tuple[PipelineConfig, ZenMLConfig]:
    """Read the configuration that the options name, with presets and overrides laid over it."""
    file = options.config or ROOT / "configs" / f"{options.pipeline}.yaml"
    presets = [ROOT / "configs" / "presets" / f"{name}.yaml" for name in options.presets]
    for name, path in zip(options.presets, presets, strict=True):
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise ConfigError(f"There is no preset {name!r}; presets are: {known}.")
    defaults = {}
    if options.data_dir:
        defaults["--data-dir"] = f"data.data_dir={options.data_dir}"
    overrides = [*options.overrides, *(["zenml.enable_cache=false"] if options.no_cache else [])]
    schema = file_schema(options.pipeline)
    content = load_config(schema, file, presets=presets, overrides=overrides, defaults=defaults)
    config, zenml = split_config(options.pipeline, content)
    return cast(PipelineConfig, config), zenml
