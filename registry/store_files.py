"""Files of an artifact store that several processes may write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from zenml.config.global_config import GlobalConfiguration

from cv_factory.artifacts.files import file_lock
from cv_factory.inference.batch_output import OutputFolder

if TYPE_CHECKING:
    from zenml.artifact_stores import BaseArtifactStore


def open_store_folder(path: str) -> OutputFolder:
    """Open a folder of the active stack's artifact store, which need not exist."""
    from zenml.client import Client
    from zenml.utils.io_utils import is_remote

    store = Client().active_stack.artifact_store
    root = f"{store.path.rstrip('/')}/{path}"
    if not is_remote(store.path):
        return OutputFolder.open(root, {})
    # ZenML's remote stores are fsspec's.
    return OutputFolder(store.filesystem, root, root)  # type: ignore[attr-defined]


@contextmanager
def store_lock(model_name: str) -> Iterator[None]:
    """Hold the lock of what monitoring stores of a model, on this machine, and wait for it before.

    Who rewrites files holds it: what was forgotten would come back from one that was read before.
    """
    folder = Path(GlobalConfiguration().local_stores_path) / "monitoring"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / model_name):
        yield


def write_atomic(store: "BaseArtifactStore", path: str, text: str) -> None:
    """Write a file and its folder: under another name, then renamed, so that no part is ever read.

    A kill in between leaves a file that ends in ``.part``. Of several writers the last wins.
    """
    store.makedirs(path.rpartition("/")[0])
    partial = f"{path}.{uuid4().hex[:12]}.part"
    with store.open(partial, "w") as file:
        file.write(text)
    store.rename(partial, path, overwrite=True)
