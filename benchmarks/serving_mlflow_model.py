"""The pyfunc that MLflow serves in ``benchmarks.serving``: base64 in, ONNX Runtime inside."""

import base64
import io
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from PIL import Image


class Classifier(PythonModel):
    """Decodes, scores and answers each image."""

    def load_context(self, context: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self._session = onnxruntime.InferenceSession(context.artifacts["model"], options)
        _, self._height, self._width, self._channels = self._session.get_inputs()[0].shape

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[dict[str, Any]]:
        images = []
        for text in np.asarray(model_input).ravel():
            opened = Image.open(io.BytesIO(base64.b64decode(text)))
            image = opened.convert("L" if self._channels == 1 else "RGB")
            if image.size != (self._width, self._height):
                image = image.resize((self._width, self._height))
            pixels = np.asarray(image, np.uint8)
            images.append(pixels.reshape(self._height, self._width, self._channels))
        [probabilities] = self._session.run(["probabilities"], {"images": np.stack(images)})
        return [{"label": int(p.argmax()), "probabilities": p.tolist()} for p in probabilities]


set_model(Classifier())
