"""Checks and lineage of a run, made before anything is created."""

import uuid
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import click

from cli.options import ROOT
from cv_factory.artifacts.files import fingerprint
from cv_factory.config.data import DataConfig
from cv_factory.config.training import TrainingPipelineConfig, ValidationPipelineConfig
from cv_factory.config.validation import ValidationConfig
from cv_factory.errors import ConfigError, CVFactoryError

if TYPE_CHECKING:
    from cv_factory.data.sources import ImageSource

_Result = TypeVar("_Result")


class Checks:
    """Checks of a run that are all made before any of them ends it."""

    def __init__(self) -> None:
        """Start without a refusal."""
        self._errors: list[CVFactoryError] = []

    def run(self, check: Callable[[], _Result]) -> _Result | None:
        """Return what a check returns; None if it refused."""
        try:
            return check()
        except CVFactoryError as error:
            self._errors.append(error)
            return None

    def finish(self) -> None:
        """End the run if a check has refused.

        Raises:
            CVFactoryError: The refusal, or a ``ConfigError`` with all of them.
        """
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise ConfigError("\n".join(dict.fromkeys(map(str, self._errors))))


def check_source(config: DataConfig, *, labelled: bool) -> None:
    """Open a data source and close it again.

    Raises:
        SourceError: It does not exist or cannot be read.
    """
    from cv_factory.data.sources import open_source

    open_source(config, labelled=labelled).close()


def fingerprint_source(
    config: DataConfig, check: "Callable[[ImageSource], None]" = lambda _source: None
) -> str:
    """Open a data source and return what the cache of ``ingest`` depends on beside its code.

    That is the source's fingerprint and the version of the decoder. It never comes again where the
    source cannot tell whether an image changed, so that the images are read in every run.

    Args:
        config: The section ``data``.
        check: Called with the open source; it raises what it refuses.

    Raises:
        SourceError: It does not exist or cannot be read.
    """
    from cv_factory.data.sources import open_source

    with open_source(config) as source:
        check(source)
        parts = [*_fingerprint_images(source), version("Pillow")]
    if config.additional is not None:
        with open_source(config.additional_config) as source:
            parts += _fingerprint_images(source)
    return fingerprint(parts)


def _fingerprint_images(source: "ImageSource") -> list[str]:
    if source.has_versions:
        return [source.fingerprint()]
    click.echo(
        f"Step ingest is not cached: {source.description} does not tell whether an image "
        "changed. Later steps are cached if the images are the same.",
        err=True,
    )
    return [source.fingerprint(), uuid.uuid4().hex]


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
