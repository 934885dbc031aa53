"""Store of monitoring: the predictions of a model, compacted and as services still log them."""

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from cv_factory.errors import ConfigError
from cv_factory.monitoring.prediction_reader import Selection, build_window
from cv_factory.monitoring.prediction_table import parse_log
from cv_factory.monitoring.window import Window
from cv_factory.serving.logging.prediction_log import find_log_files
from registry import deployments, versions

logger = logging.getLogger(__name__)


def load_window(
    model_name: str,
    start: datetime | None = None,
    end: datetime | None = None,
    version: str | None = None,
) -> Window:
    """Load the predictions of a model, with their labels.

    Args:
        model_name: The model.
        start: Time of the first, with a time zone; None for no bound.
        end: Time before which the last was, with a time zone; None for no bound.
        version: Number of a version, as text; None for all.

    Raises:
        ConfigError: No service of the model writes a prediction log.
        RegistryError: The model has no version whose classes could be known.
    """
    folders = deployments.log_folders(model_name)
    if not folders:
        raise ConfigError(
            f"No service of {model_name} writes a prediction log. Set serving.log.predictions to a "
            f"folder, and deploy: python run.py --pipeline deployment --model {model_name}"
        )
    class_names = load_class_names(model_name, version)
    selection = Selection(model_name, start, end, version)
    return build_window(_read_logs(folders, class_names), selection, class_names)


def load_class_names(model_name: str, version: str | None = None) -> tuple[str, ...]:
    """Return the classes of a version; None is the deployed one, or the newest.

    Raises:
        RegistryError: There is no such version.
    """
    if version is None:
        bundle = deployments.deployed_bundle(model_name)
        if bundle is not None:
            return bundle.predictor.contract.class_names
        newest = versions.list_versions(model_name)
        if not newest:
            raise versions.RegistryError(f"{model_name} has no version.")
        return versions.load_predictor(newest[0]).contract.class_names
    return versions.load_predictor(
        versions.get_version(model_name, int(version))
    ).contract.class_names


def _read_logs(folders: list[Path], class_names: tuple[str, ...]) -> Iterator[pa.Table]:
    for folder in folders:
        for file in find_log_files(folder):
            try:
                content = file.read_bytes()
            except FileNotFoundError:  # pruned meanwhile
                continue
            table, n_damaged = parse_log(content, class_names)
            if n_damaged:
                logger.warning("%s: %d damaged lines were skipped.", file, n_damaged)
            yield table
