"""Step ``export_backbone``: a pretrained backbone as an ONNX graph, once for all datasets."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.features.backbone import Backbone
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.features.export"))
def export_backbone(name: str, input_size: int) -> Annotated[Backbone, "backbone"]:
    """Export the backbone that the configuration names, and check it against PyTorch."""
    from cv_factory.features.export import export_backbone as export

    return export(name, input_size)
