"""Predictor as a pyfunc, MLflow's interface to models; it answers as the service does.

MLflow imports this module beside the predictor's files, so nothing of MLflow is imported here, and
no pickle is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cv_factory.config.serving import ServingConfig
from cv_factory.errors import ImageError
from cv_factory.inference.predictor import Predictor
from cv_factory.serving.inference_engine import Pixels, decode_input
from cv_factory.serving.postprocessors import build_image_postprocessor, prediction_fields

#: Column of the input: one encoded image (PNG, JPEG, ...) a row.
COLUMN = "image"


class PyfuncModel:
    """Decodes, predicts and postprocesses as a service with the default settings does."""

    def __init__(self, predictor: Predictor) -> None:
        serving = ServingConfig()
        self._predictor, self._limits = predictor, serving.limits
        self._postprocess = build_image_postprocessor(serving.postprocessor, predictor.contract)

    def predict(
        self, model_input: Mapping[str, Sequence[bytes]], params: object = None
    ) -> list[dict[str, Any]]:
        """Return label and probabilities of each image, as ``/predict`` does.

        Args:
            model_input: Table with the column ``image``, such as a pandas ``DataFrame``.
            params: Not used; MLflow hands it over.

        Raises:
            ImageError: An image cannot be decoded, or exceeds the limits; its row is named.
        """
        images = list(model_input[COLUMN])
        if not images:
            return []
        pixels = np.stack([self._decode(image, row) for row, image in enumerate(images)])
        rows = self._predictor.predict(pixels).rows()
        return [prediction_fields(self._postprocess(scores), scores) for scores in rows]

    def _decode(self, image: bytes, row: int) -> Pixels:
        try:
            return decode_input(image, self._predictor.contract, self._limits).pixels
        except ImageError as error:
            raise ImageError(f"image {row} cannot be used: {error}") from None


def _load_pyfunc(path: str) -> PyfuncModel:
    """Load the predictor in ``path``, for MLflow, which calls the function by this name.

    Raises:
        ArtifactError: Its files are damaged, or the golden samples differ from their values at
            export.
    """
    predictor = Predictor.load(Path(path))
    golden = predictor.golden
    golden.verify(predictor.predict(golden.images), "The predictor")
    return PyfuncModel(predictor)
