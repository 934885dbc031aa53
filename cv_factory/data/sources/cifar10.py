"""CIFAR-10. A. Krizhevsky, 2009."""

from cv_factory.config.data import DataConfig
from cv_factory.data.sources._torchvision_sets import TorchvisionSource


def open_source(config: DataConfig, *, labelled: bool) -> TorchvisionSource:
    """Open the set; torchvision downloads it where it is missing."""
    return TorchvisionSource("CIFAR10", config.data_dir, download=True)
