"""Checks and lineage of a run, made before anything is created."""

from cli.options import ROOT
from cv_factory.artifacts.files import fingerprint
from cv_factory.config.data import DataConfig
from cv_factory.config.training import TrainingPipelineConfig, ValidationPipelineConfig
from cv_factory.config.validation import ValidationConfig


def check_source(config: DataConfig, *, labelled: bool = True) -> str:
    """Open a data source and return its fingerprint, on which the cache of ``ingest`` depends.

    Raises:
        SourceError: It does not exist or cannot be read.
    """
    from cv_factory.data.sources import open_source

    with open_source(config, labelled=labelled) as source:
        return source.fingerprint()


def resolve_reference(config: ValidationConfig) -> ValidationConfig:
    """Replace the name of the reference dataset, if there is one, by the id of its artifact.

    Raises:
        ConfigError: There is no such dataset.
    """
    if config.reference is None:
        return config
    from registry.stored_datasets import resolve_dataset_id

    return config.model_copy(update={"reference": resolve_dataset_id(config.reference)})


def collect_lineage(
    config: TrainingPipelineConfig | ValidationPipelineConfig, stack: str
) -> dict[str, str]:
    """Return the git commit, the fingerprint of the configuration and the stack of a run."""
    from registry.lineage import git_lineage

    config_fingerprint = fingerprint(config.fingerprint_fields())
    return {**git_lineage(ROOT), "config": config_fingerprint, "stack": stack}


def describe_lineage(lineage: dict[str, str]) -> str:
    """Return the configuration and the commit of a run in one line, for its plan."""
    return f"Configuration {lineage['config'][:12]}, commit {lineage['git_commit'][:12]}"
