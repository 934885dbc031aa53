"""Step ``ingest``: read and decode the images of any source into an ImageDataset."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.data import DataConfig
from cv_factory.data.dataset import ImageDataset
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.data.ingest"))
def ingest(config: DataConfig, source_fingerprint: str) -> Annotated[ImageDataset, "dataset"]:
    """Read and decode the configured images.

    ``source_fingerprint`` is of the source as it was when the run began: it makes the cache notice
    that files were added, removed or changed.
    """
    from cv_factory.data.ingest import ingest as ingest_images

    return ingest_images(config)
