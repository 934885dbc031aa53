"""Finds the datasets that earlier runs stored."""

from zenml.client import Client

from cv_factory.errors import ConfigError


def dataset_version_id(reference: str) -> str:
    """Return the id of a stored dataset: of the newest one by that name, or of the one by that id.

    Asked for before a run, so that the run's own dataset is never compared with itself, and so that
    the cache sees which dataset a name stood for.

    Raises:
        ConfigError: There is no such artifact version, it is not unique, or it is no dataset.
    """
    try:
        version = Client().get_artifact_version(reference)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"validation.reference: there is no stored dataset {reference!r} "
            f"({error.args[0] if error.args else error}). The ids stand in the dashboard, artifact "
            "'dataset'."
        ) from None
    if version.data_type.attribute != "ImageDataset":
        raise ConfigError(
            f"validation.reference: {reference!r} is a {version.data_type.attribute}, no dataset."
        )
    return str(version.id)
