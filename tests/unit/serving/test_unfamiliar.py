"""Unfamiliar images as a client sees them: in answers, abstentions, logs, metrics, descriptions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cli.commands.predict import command
from cv_factory.config.serving import ServingConfig
from cv_factory.deployment.verify import VerificationError, verify_golden_samples
from cv_factory.errors import ConfigError
from cv_factory.inference.predictor import GoldenSamples, ImageScores
from cv_factory.serving.application import Application
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.logging.prediction_log import read_predictions
from cv_factory.serving.postprocessors import (
    PostprocessedPrediction,
    build_image_postprocessor,
    prediction_fields,
)
from cv_factory_client import PredictionClient
from tests.support.digits_service import app_client, digit_png, digits_bundle, post_image
from tests.support.images import encode
from tests.support.predictors import digits_predictor

ABSTAIN: dict[str, Any] = {"postprocessor": {"abstain_when_unfamiliar": True}}


def noise_png() -> bytes:
    """Return random pixels, larger than the predictor's images."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels))


def test_an_answer_says_whether_the_image_is_unfamiliar(tmp_path: Path) -> None:
    with app_client(has_familiarity=True, log={"predictions": str(tmp_path)}) as client:
        answers = [
            post_image(client, image).json()["predictions"][0]
            for image in (digit_png(), noise_png())
        ]
        metrics = client.get("/metrics").text
        information = client.get("/model-info").json()
    assert [answer["unfamiliar"] for answer in answers] == [False, True]
    assert answers[0]["unfamiliarity"] <= 1 < answers[1]["unfamiliarity"]
    assert answers[1]["label"] is not None, "it abstains where that is configured only"
    logged = list(read_predictions(tmp_path))
    assert [entry["unfamiliar"] for entry in logged] == [False, True]
    for entry, answer in zip(logged, answers, strict=True):
        assert entry["unfamiliarity"] == pytest.approx(answer["unfamiliarity"], abs=1e-4)
    assert "cv_factory_unfamiliar_images_total 1.0" in metrics
    assert information["familiarity"]["false_rate"] == 0.05


def test_a_predictor_without_the_score_answers_as_before(tmp_path: Path) -> None:
    with app_client(log={"predictions": str(tmp_path)}) as client:
        (answer,) = post_image(client, noise_png()).json()["predictions"]
        metrics = client.get("/metrics").text
        assert client.get("/model-info").json()["familiarity"] is None
    assert answer.keys() == {"id", "label", "probabilities"}
    assert "unfamiliar" not in metrics, "no evidence is not a count of zero"
    assert next(read_predictions(tmp_path))["unfamiliar"] is None
    with pytest.raises(ConfigError, match=r"postprocessor: abstain_when_unfamiliar is set, and"):
        Application(digits_bundle(**ABSTAIN))


def test_the_service_abstains_where_configured_also_from_its_cache() -> None:
    with app_client(has_familiarity=True, cache={"max_entries": 4}, **ABSTAIN) as client:
        answers = [post_image(client, noise_png()).json() for _ in range(2)]
        digit = post_image(client, digit_png()).json()["predictions"][0]
    assert [answer.get("cached", False) for answer in answers] == [False, True]
    for answer in answers:
        (prediction,) = answer["predictions"]
        assert prediction["label"] is None
        assert prediction["unfamiliar"] is True
        assert prediction["probabilities"]
    assert digit["label"] is not None


def test_the_description_names_the_fields_where_they_are_answered() -> None:
    with app_client(has_familiarity=True) as client:
        answer = post_image(client, noise_png()).json()
        described = client.get("/openapi.json").json()
    schema = described["components"]["schemas"]["Predictions"]["properties"]["predictions"]["items"]
    example = described["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    fields = answer["predictions"][0].keys()
    assert set(schema["required"]) == fields
    assert example["application/json"]["example"]["predictions"][0].keys() == fields


@pytest.mark.parametrize("serving", [{}, ABSTAIN])
def test_the_golden_samples_prove_the_score_over_http(serving: dict[str, Any]) -> None:
    bundle = digits_bundle(has_familiarity=True, **serving)
    with app_client(has_familiarity=True, **serving) as client:

        def answer(request: httpx.Request) -> httpx.Response:
            response = client.post(
                request.url.path, content=request.content, headers=dict(request.headers)
            )
            return httpx.Response(response.status_code, content=response.content)

        transport = httpx.MockTransport(answer)
        verify_golden_samples("http://service", bundle, timeout=5, transport=transport)
        assert "cv_factory_predictions_total{" not in client.get("/metrics").text
        golden = bundle.predictor.golden
        assert golden.unfamiliarity is not None
        shifted = replace(golden, unfamiliarity=golden.unfamiliarity + np.float32(0.01))
        unscored = digits_predictor("logistic_regression")[0]
        for predictor in (replace(bundle.predictor, golden=shifted), unscored):
            other = replace(bundle, predictor=predictor, serving=ServingConfig())
            with pytest.raises(VerificationError, match="with an unfamiliarity of"):
                verify_golden_samples("http://service", other, timeout=5, transport=transport)


def test_rounding_at_the_bound_does_not_disprove_an_abstaining_service() -> None:
    """A golden sample may set the bound: then another CPU abstains where this one does not."""
    bundle = digits_bundle(has_familiarity=True, **ABSTAIN)
    predictor = bundle.predictor
    golden = predictor.golden
    assert golden.unfamiliarity is not None
    postprocess = build_image_postprocessor(bundle.serving.postprocessor, predictor.contract)

    def verify(at_export: float, answered: float) -> None:
        images = golden.images[:1]
        arrays = {name: array[:1] for name, array in golden.arrays().items()}
        arrays["unfamiliarity"] = np.array([at_export], np.float32)
        sample = replace(predictor, golden=GoldenSamples(**arrays))
        scores = replace(predictor.predict(images), unfamiliarity=np.array([answered])).rows()[0]
        prediction = prediction_fields(postprocess(scores), scores)
        body = {"predictions": [{"id": "1", **prediction}], "version": bundle.version}
        transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=body))
        changed = replace(bundle, predictor=sample)
        verify_golden_samples("http://service", changed, timeout=5, transport=transport)

    verify(0.99999, 1.00001)
    verify(1.00001, 0.99999)
    for at_export, answered in ((0.99, 1.01), (2.0, 0.5)):
        with pytest.raises(VerificationError, match="with an unfamiliarity of"):
            verify(at_export, answered)


def test_the_client_and_the_command_show_it(tmp_path: Path) -> None:
    bundle: Bundle = digits_bundle(has_familiarity=True)
    (tmp_path / "bundle").mkdir()
    bundle.save(tmp_path / "bundle")
    image = tmp_path / "noise.png"
    image.write_bytes(noise_png())
    arguments = [str(image), "--bundle", str(tmp_path / "bundle")]
    printed = CliRunner().invoke(command, arguments, catch_exceptions=False).stdout
    assert "UNFAMILIAR (score " in printed
    line = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False).stdout
    predicted = json.loads(line)
    assert predicted["unfamiliar"] is True

    def answer(_request: httpx.Request) -> httpx.Response:
        prediction = {"id": "1", "label": "3", "probabilities": {"3": 1.0}}
        scored = {**prediction, "unfamiliar": True, "unfamiliarity": 2.5, "of_a_later_release": 1}
        body = {"predictions": [prediction, scored], "model": "digits", "version": "1"}
        return httpx.Response(200, json=body)

    with PredictionClient("http://service", transport=httpx.MockTransport(answer)) as client:
        plain, unfamiliar = client.predict_batch([b"", b""])
    assert (plain.unfamiliar, plain.unfamiliarity) == (None, None)
    assert (unfamiliar.unfamiliar, unfamiliar.unfamiliarity) == (True, 2.5)


@pytest.mark.parametrize(
    ("score", "shown"),
    [(1.0, 1.0), (1.00003, 1.0001), (1.00006, 1.0001), (0.99999, 1.0), (1.2, 1.2)],
)
def test_an_unfamiliar_image_is_never_shown_with_the_score_of_the_bound(
    score: float, shown: float
) -> None:
    scores = ImageScores(np.ones(1, np.float32), np.ones(1, np.float32), score)
    fields = prediction_fields(PostprocessedPrediction("3", {}), scores)
    assert fields["unfamiliarity"] == shown
    assert fields["unfamiliar"] is (score > 1)
