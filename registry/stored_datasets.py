"""Look-up of datasets that earlier runs stored."""

from zenml.client import Client

from cv_factory.errors import ConfigError


def resolve_dataset_id(reference: str) -> str:
    """Return the id of a stored dataset, given its id or an artifact name (the newest version).

    Called before a run starts, so that the run's own dataset is never compared with itself, and the
    cache key holds the dataset that the name stood for.

    Raises:
        ConfigError: There is no such artifact version, it is not unique, or it is no dataset.
    """
    try:
        version = Client().get_artifact_version(reference)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"validation.reference: there is no stored dataset {reference!r} "
            f"({error.args[0] if error.args else error}). The dashboard lists the ids, artifact "
            "'dataset'."
        ) from None
    if version.data_type.attribute != "ImageDataset":
        raise ConfigError(
            f"validation.reference: {reference!r} is a {version.data_type.attribute}, no dataset."
        )
    return str(version.id)
