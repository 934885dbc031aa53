"""Store of monitoring: the predictions of a model, compacted and as services still log them.

It lies in the artifact store of the active stack: ``cv_factory_monitoring/MODEL/predictions``.
"""

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cv_factory.errors import ConfigError
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring import captured_data, compaction
from cv_factory.monitoring.batch_results import read_batch_results
from cv_factory.monitoring.compaction import Compaction
from cv_factory.monitoring.labels import join_labels
from cv_factory.monitoring.prediction_reader import Selection, build_window
from cv_factory.monitoring.window import Window
from cv_factory.serving.logging.image_folder import remove_old_images
from registry import deployments, versions
from registry.label_store import collect_labels, load_labels
from registry.store_files import open_store_folder

logger = logging.getLogger(__name__)

_FOLDER = "cv_factory_monitoring"


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
        ConfigError: No service of the model writes a prediction log, and none was stored.
        OutputError: The store cannot be read.
        RegistryError: The model has no version whose classes could be known.
    """
    folders, store = deployments.log_folders(model_name), open_folder(model_name, "predictions")
    if not folders and not compaction.table_names(store):
        raise ConfigError(
            f"No service of {model_name} writes a prediction log. Set serving.log.predictions to a "
            f"folder, and deploy: python run.py --pipeline deployment --model {model_name}"
        )
    class_names = load_class_names(model_name, version)
    tables = _read_all(folders, store, Selection(model_name, start, end), class_names)
    return _build_labeled(tables, Selection(model_name, start, end, version), class_names)


def load_captured_window(
    path: str,
    model_name: str,
    start: datetime | None = None,
    end: datetime | None = None,
    version: str | None = None,
) -> Window:
    """Load the predictions that SageMaker captured of a model's endpoint; see ``load_window``.

    Args:
        path: Folder or URL of the captured data, such as ``s3://bucket/captured/ENDPOINT``.
        model_name: The model.
        start: See ``load_window``.
        end: See ``load_window``.
        version: See ``load_window``.

    Raises:
        ConfigError: There is no captured data.
        SourceError: No file system handles the URL.
    """
    class_names = load_class_names(model_name, version)
    tables = captured_data.read_captured_data(path, class_names)
    return _build_labeled(tables, Selection(model_name, start, end, version), class_names)


def load_batch_window(path: str, model_name: str, version: str | None = None) -> Window:
    """Load the predictions of a batch inference job; see ``load_window``.

    Args:
        path: Folder or URL of its output.
        model_name: The model.
        version: Number of a version, as text; None for all.

    Raises:
        ConfigError: The folder holds no batch predictions.
        OutputError: It cannot be read.
        SourceError: No file system handles the URL.
    """
    class_names = load_class_names(model_name, version)
    tables = read_batch_results(OutputFolder.open(path, {}))
    return _build_labeled(tables, Selection(model_name, version=version), class_names)


def compact_logs(model_name: str) -> Compaction:
    """Move the closed prediction logs of a model into the store, and remove images that are old.

    Labels that services received are copied into the store.

    Raises:
        OutputError: The store cannot be written; nothing is lost.
    """
    store, class_names = open_folder(model_name, "predictions"), load_class_names(model_name)
    total = Compaction()
    for folder in deployments.log_folders(model_name):
        total += compaction.compact(folder, store, model_name, class_names)
    for log in deployments.load_log_configs(model_name):
        if log.images is not None:
            remove_old_images(Path(log.images.folder), log.images.days)
    collect_labels(model_name)
    if total.n_lost or total.n_damaged:
        logger.warning(
            "%s: %d predictions were lost before they were stored (dropped, or pruned by "
            "serving.log.prediction_files), and %d lines are damaged.",
            model_name,
            total.n_lost,
            total.n_damaged,
        )
    return total


def find_stored_prediction(model_name: str, prediction_id: str) -> dict[str, Any] | None:
    """Return a prediction of the store by its id, None if it has none.

    Raises:
        OutputError: The store cannot be read.
    """
    store = open_folder(model_name, "predictions")
    for table in compaction.read_store(store, Selection(model_name)):
        rows = table.filter(pc.equal(table.column("id"), prediction_id)).to_pylist()
        if rows:
            time = rows[0]["time"].isoformat(timespec="milliseconds")
            return {**rows[0], "time": time, "unfamiliar": (rows[0]["unfamiliarity"] or 0.0) > 1.0}
    return None


def open_folder(model_name: str, name: str) -> OutputFolder:
    """Open a folder of a model in the store, such as ``predictions`` or ``labels``."""
    return open_store_folder(f"{_FOLDER}/{model_name}/{name}")


def load_class_names(model_name: str, version: str | None = None) -> tuple[str, ...]:
    """Return the classes of a version; None is the deployed one, or the newest.

    Raises:
        RegistryError: There is no such version.
    """
    if version is not None:
        number = versions.get_version(model_name, int(version))
        return versions.load_predictor(number).contract.class_names
    bundle = deployments.deployed_bundle(model_name)
    if bundle is not None:
        return bundle.predictor.contract.class_names
    newest = versions.list_versions(model_name)
    if not newest:
        raise versions.RegistryError(f"{model_name} has no version.")
    return versions.load_predictor(newest[0]).contract.class_names


def _build_labeled(
    tables: Iterable[pa.Table], selection: Selection, class_names: tuple[str, ...]
) -> Window:
    """Build a window with its labels.

    A label may name a prediction that the window leaves out, such as production's of an image that
    a shadow has predicted, too.
    """
    labels = load_labels(selection.model_name)
    ids = pa.array(labels.records["prediction_id"].dropna().unique(), pa.string())
    hmacs: dict[str, str] = {}

    def note_hmacs() -> Iterator[pa.Table]:
        for table in tables:
            named = table.select(["id", "image_hmac"]).filter(pc.is_in(table.column("id"), ids))
            hmacs.update(zip(*(column.to_pylist() for column in named.columns), strict=True))
            yield table

    window = build_window(note_hmacs(), selection, class_names)
    return join_labels(window, labels.complete(hmacs))


def _read_all(
    folders: list[Path],
    store: OutputFolder,
    selection: Selection,
    class_names: tuple[str, ...],
) -> Iterator[pa.Table]:
    # The store is listed last: it then has what is compacted while the logs are read.
    for file, table, n_damaged in compaction.read_logs(folders, class_names):
        if n_damaged:
            logger.warning("%s: %d damaged lines were skipped.", file, n_damaged)
        yield table
    yield from compaction.read_store(store, selection)
