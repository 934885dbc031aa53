"""Any classification network of torchvision, by torchvision's name."""

from typing import Literal

from pydantic import Field

from cv_factory.models._torchvision_networks import (
    TorchvisionSection,
    build,
    check_available,
    initialize,
)

__all__ = ["TorchvisionModelConfig", "build", "check_available", "initialize"]


class TorchvisionModelConfig(TorchvisionSection):
    """Any classification network of torchvision."""

    name: Literal["torchvision"] = "torchvision"
    architecture: str = Field(
        min_length=1, description="torchvision's name, such as shufflenet_v2_x0_5"
    )

    @property
    def torchvision_name(self) -> str:
        """The architecture as torchvision calls it."""
        return self.architecture
