"""The pyfunc that MLflow serves in ``benchmarks.serving``: base64 in, ONNX Runtime inside."""

import base64
import io
from typing import Any

import mlflow
import numpy as np
from PIL import Image


class Classifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
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
            image = Image.open(io.BytesIO(base64.b64decode(text)))
            image = image.convert("L" if self._channels == 1 else "RGB")
            if image.size != (self._width, self._height):
                image = image.resize((self._width, self._height))
            pixels = np.asarray(image, np.uint8)
            images.append(pixels.reshape(self._height, self._width, self._channels))
        [probabilities] = self._session.run(["probabilities"], {"images": np.stack(images)})
        return [{"label": int(p.argmax()), "probabilities": p.tolist()} for p in probabilities]


mlflow.models.set_model(Classifier())
