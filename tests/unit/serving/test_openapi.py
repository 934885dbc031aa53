"""The OpenAPI description equals its golden file and has an example of the bundle's own."""

import base64
import io
import json
from collections.abc import Callable

import numpy as np
from PIL import Image

from cv_factory.config.serving import ServingConfig
from cv_factory.inference.predictor import Contract, Familiarity, GoldenSamples, Predictor
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.openapi import build_openapi


def test_the_description_equals_its_golden_file(golden: Callable[[str, str], None]) -> None:
    samples = GoldenSamples(
        np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3),
        np.array([[0.25, 0.75]], np.float32),
        np.zeros((1, 2), np.float32),
        np.array([0.5], np.float32),
    )
    familiarity = Familiarity(1.0, 0.01, 99, 512)
    contract = Contract(4, 4, 3, ("cat", "dog"), 2, {}, {}, familiarity=familiarity)
    bundle = Bundle(Predictor(b"", contract, samples), ServingConfig(), "pets", "3", "2026-01-01")
    description = build_openapi(bundle, is_open=False)
    assert build_openapi(bundle, is_open=True) == {**description, "security": []}
    example = description["paths"]["/predict/batch"]["post"]["requestBody"]["content"][
        "application/json"
    ]["example"]["images"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(example[0]))))
    np.testing.assert_array_equal(pixels, samples.images[0])
    # The bytes of a PNG depend on Pillow's version.
    text = json.dumps(description, indent=2).replace(example[0], "BASE64")
    golden("openapi.json", text + "\n")
