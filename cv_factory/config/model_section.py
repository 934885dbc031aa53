"""Base classes of the models' sections; each model's own section stands in its module.

A section says by its base class how the model is trained: networks by gradient descent on images,
classical models on features: a backbone's, or the standardized PCA features.
"""

from typing import Annotated, Any

from pydantic import Field

from cv_factory.config.section import Section

InputSize = Annotated[int, Field(ge=16, le=1024)]
Width = Annotated[int, Field(ge=4, le=2048)]


class ModelSection(Section):
    """Base of every model's section; ``name`` is that of the module in ``cv_factory.models``."""

    name: str

    def model_post_init(self, _context: Any) -> None:
        """Count the name as given: ZenML stores what is given, and a union needs the name."""
        self.model_fields_set.add("name")


class NetworkSection(ModelSection):
    """Base of models that are trained by gradient descent on normalized images."""


class BackboneSection(NetworkSection):
    """Base of well-known architectures: a backbone and a head of one linear layer."""

    input_size: InputSize | None = Field(
        None, description="images are resized to this square inside the graph; null: as they are"
    )
    freeze_backbone: bool = Field(False, description="train the head alone")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="before the head")


class ClassicalSection(ModelSection):
    """Base of models that are fitted on features: a backbone's, or the standardized PCA's."""
