"""Look-up of the data issues that earlier runs stored."""

from zenml.client import Client

from cv_factory.curation.data_issues import DataIssues
from cv_factory.errors import ConfigError
from registry import versions
from registry.artifact_loader import load_artifact

_NAME = "data_issues"
_HINT = (
    "A run whose configuration has the section features looks for them: --pipeline validation or "
    "training with --set features.backbone=efficientnet_lite0"
)


def load_issues(model_name: str | None, number: int | None) -> tuple[DataIssues, str]:
    """Load the issues of a version's images, or the newest ones that were stored.

    Args:
        model_name: None for the only model, where a number is given.
        number: Of a version; None for the newest.

    Returns:
        The issues, and whose they are.

    Raises:
        ConfigError: There are none.
    """
    if model_name is None and number is None:
        try:
            stored = Client().get_artifact_version(_NAME)
        except KeyError:
            raise ConfigError(f"No run has looked for data issues yet. {_HINT}") from None
        when = f"{stored.created:%Y-%m-%d %H:%M}"
        return load_artifact(stored, DataIssues), f"the dataset looked at last, {when} UTC"
    name = versions.resolve_model_name(model_name)
    if number is None:
        number = max((version.number for version in versions.list_versions(name)), default=1)
    version = versions.get_version(name, number)
    artifact = version.get_artifact(_NAME)
    origin = f"{name} version {number}"
    if artifact is None:
        raise ConfigError(f"The run of {origin} looked for no data issues. {_HINT}")
    return load_artifact(artifact, DataIssues), origin
