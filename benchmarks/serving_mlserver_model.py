"""The model that MLServer serves in ``benchmarks.serving``: base64 in, ONNX Runtime inside.

MLServer imports it in an environment of its own, which has neither this project nor its packages.
"""

import base64
import io

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from PIL import Image


class Classifier(MLModel):  # type: ignore[misc]
    """Decodes and scores the image of a request of the Open Inference Protocol."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        [text] = payload.inputs[0].data
        _, height, width, channels = self._session.get_inputs()[0].shape
        opened = Image.open(io.BytesIO(base64.b64decode(text)))
        image = opened.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height))
        pixels = np.asarray(image, np.uint8).reshape(1, height, width, channels)
        [probabilities] = self._session.run(["probabilities"], {"images": pixels})
        outputs = {"label": probabilities.argmax(1), "probabilities": probabilities}
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, value) for name, value in outputs.items()],
        )
