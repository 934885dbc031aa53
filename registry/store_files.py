"""Files of an artifact store that several processes may write."""

from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from zenml.artifact_stores import BaseArtifactStore


def write_atomic(store: "BaseArtifactStore", path: str, text: str) -> None:
    """Write a file and its folder: under another name, then renamed, so that no part is ever read.

    A kill in between leaves a file that ends in ``.part``. Of several writers the last wins.
    """
    store.makedirs(path.rpartition("/")[0])
    partial = f"{path}.{uuid4().hex[:12]}.part"
    with store.open(partial, "w") as file:
        file.write(text)
    store.rename(partial, path, overwrite=True)
