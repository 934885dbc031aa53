"""Where images come from: one module a kind of source, one factory for all."""

from cv_factory.config import DataConfig
from cv_factory.data.sources.arrays import DigitsSource, FashionMNISTSource
from cv_factory.data.sources.base import ImageRecord, ImageSource
from cv_factory.data.sources.folder import FolderSource

__all__ = ["ImageRecord", "ImageSource", "open_source"]


def open_source(config: DataConfig) -> ImageSource:
    """Open the source that the configuration names.

    Raises:
        SourceError: The source does not exist or is empty.
    """
    match config.source:
        case "digits":
            return DigitsSource()
        case "fashion_mnist":
            return FashionMNISTSource(config.data_dir)
        case "folder":
            return FolderSource(config.path or "")
