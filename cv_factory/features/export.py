"""Export of a pretrained backbone as an ONNX graph, checked against PyTorch."""

from cv_factory.features.backbone import Backbone


def export_backbone(name: str, input_size: int) -> Backbone:
    """Export a backbone by PyTorch's dynamo exporter, and compare both on random images.

    Args:
        name: As in ``features.backbone``.
        input_size: Pixels a side of its input.

    Raises:
        ConfigError: There is no such backbone, or its weights are not on this machine.
        ExportError: The graph's features differ from the network's.
    """
    raise NotImplementedError
