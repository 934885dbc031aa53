"""The pyfunc that MLflow loads: it answers as the service does, image by image."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from cv_factory.config.serving import ServingConfig
from cv_factory.data.encode import encode_png
from cv_factory.errors import ArtifactError, ImageError
from cv_factory.serving.application import Application
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.pyfunc_model import PyfuncModel, _load_pyfunc
from tests.support.predictors import digits_predictor, with_wrong_golden_samples

PREDICTOR = digits_predictor("logistic_regression", has_familiarity=True)[0]


@pytest.fixture
def service() -> Iterator[TestClient]:
    application = Application(Bundle(PREDICTOR, ServingConfig(), "digits", "1", "2026-11-28"))
    yield TestClient(application)
    application.close()


def photo(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def test_it_answers_as_the_service_does(service: TestClient) -> None:
    images = [encode_png(image) for image in PREDICTOR.golden.images]
    assert PyfuncModel(PREDICTOR).predict({"image": [photo("PNG", "L")]})[0]["unfamiliar"]
    images += [photo("JPEG", "RGB"), photo("PNG", "RGBA"), photo("PNG", "L")]
    answers = PyfuncModel(PREDICTOR).predict({"image": images})
    assert len(answers) == len(images)
    assert answers[-1]["unfamiliar"], "noise is no digit"
    for image, answer in zip(images, answers, strict=True):
        response = service.post("/predict", content=image, headers={"Content-Type": "image/png"})
        (expected,) = response.json()["predictions"]
        assert answer.keys() == expected.keys() - {"id"}
        assert (answer["label"], answer["unfamiliar"]) == (
            expected["label"],
            expected["unfamiliar"],
        )
        assert abs(answer["unfamiliarity"] - expected["unfamiliarity"]) <= 1e-3
        for name, probability in expected["probabilities"].items():
            assert abs(answer["probabilities"][name] - probability) <= 1e-5


def test_no_image_gives_no_answer() -> None:
    assert PyfuncModel(PREDICTOR).predict({"image": []}) == []


def test_an_image_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ImageError, match="image 1 cannot be used: "):
        PyfuncModel(PREDICTOR).predict({"image": [photo("PNG", "L"), b"no image"]})


def test_a_predictor_that_answers_otherwise_than_at_export_is_not_loaded(tmp_path) -> None:
    with_wrong_golden_samples(PREDICTOR).save(tmp_path)
    with pytest.raises(ArtifactError, match="golden samples"):
        _load_pyfunc(str(tmp_path))
