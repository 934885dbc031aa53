"""MNIST. Y. LeCun et al., 1998."""

from cv_factory.config.data import DataConfig
from cv_factory.data.sources._torchvision_sets import TorchvisionSource


def open_source(config: DataConfig, *, labelled: bool) -> TorchvisionSource:
    """Open the set; torchvision downloads it where it is missing."""
    return TorchvisionSource("MNIST", config.data_dir, download=True)
