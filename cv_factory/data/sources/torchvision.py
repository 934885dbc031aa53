"""Any image classification set of torchvision, by torchvision's name."""

from cv_factory.config.data import DataConfig
from cv_factory.data.sources._torchvision_sets import TorchvisionSource


def open_source(config: DataConfig, *, labelled: bool) -> TorchvisionSource:
    """Open the set that the section ``torchvision`` names."""
    section = config.torchvision
    assert section is not None, "checked with the configuration"
    return TorchvisionSource(section.name, config.data_dir, section.download)
