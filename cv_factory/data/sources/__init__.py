"""Where images come from: one module a kind of source, one factory for all."""

from cv_factory.config.data import DataConfig, FolderConfig
from cv_factory.data.sources.base import Content, ImageRecord, ImageSource

__all__ = ["Content", "ImageRecord", "ImageSource", "open_source"]


def open_source(config: DataConfig, *, labelled: bool = True) -> ImageSource:
    """Open the source that the configuration names; use it in a ``with`` statement.

    Args:
        config: The section ``data``.
        labelled: Whether a folder's subfolders must be classes; images that are only scored need
            no labels.

    Raises:
        SourceError: The source does not exist, cannot be reached or is empty.
        ConfigError: A setting needs an environment variable that is not set.
    """
    # Imported one by one: each kind needs packages that the others do without.
    match config.source:
        case "digits":
            from cv_factory.data.sources.arrays import DigitsSource

            return DigitsSource()
        case "fashion_mnist":
            from cv_factory.data.sources.arrays import FashionMNISTSource

            return FashionMNISTSource(config.data_dir)
        case "mnist" | "cifar10" | "torchvision":
            return _open_torchvision(config)
        case "folder":
            from cv_factory.data.sources.folder import FolderSource
            from cv_factory.data.sources.stores import open_store

            store = open_store(config.path or "", config.storage_options)
            pattern = (config.folder or FolderConfig()).pattern
            return FolderSource(store, pattern, config.max_bytes, labelled=labelled)
        case "manifest":
            from cv_factory.data.sources.manifest import ManifestSource

            return ManifestSource(config)
        case "sql":
            from cv_factory.data.sources.sql import SqlSource

            return SqlSource(config)
        case "http":
            from cv_factory.data.sources.http import HttpSource

            return HttpSource(config)
        case "dvc":
            from cv_factory.data.sources.dvc import open_dvc

            return open_dvc(config, labelled=labelled)


def _open_torchvision(config: DataConfig) -> ImageSource:
    from cv_factory.data.sources.torchvision_sets import TorchvisionSource

    known = {"mnist": "MNIST", "cifar10": "CIFAR10"}
    section = config.torchvision
    name = section.name if section else known[config.source]
    return TorchvisionSource(name, config.data_dir, section.download if section else True)
