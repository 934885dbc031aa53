"""What the service answers: the same as the predictor, and a named problem for everything else."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cli.predict import command as predict_command
from cv_factory.data.decode import decode
from cv_factory.errors import ArtifactError, ConfigError
from cv_factory.serving.application import create_app
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.logging.prediction_log import find_prediction, read_predictions
from tests.support.digits_service import digit, digits_bundle, kind, post, served
from tests.support.images import encode, scene
from tests.support.predictors import digits_predictor, with_wrong_golden_samples

CLASSES = [str(n) for n in range(10)]


def picture() -> Image.Image:
    return Image.fromarray(scene(48, 64))


def odd_images() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    layer = picture().convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize((64, 48)))
    frames = [picture(), picture().rotate(90)]
    return {
        "EXIF rotation": encode(picture(), "JPEG", exif=exif),
        "RGBA": encode(layer),
        "CMYK": encode(picture().convert("CMYK"), "JPEG"),
        "16 bit": encode(deep),
        "palette": encode(picture().convert("P")),
        "animation": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "one bit": encode(picture().convert("1")),
    }


def expected(content: bytes) -> dict[str, float]:
    predictor, _, _ = digits_predictor("small_cnn")
    pixels = decode(content, height=8, width=8, channels=1, max_pixels=10**8).pixels
    scores = predictor.predict(pixels[None]).probabilities[0]
    return dict(zip(CLASSES, scores.tolist(), strict=True))


def one(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    [prediction] = response.json()["predictions"]
    return dict(prediction)


def form(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{n}.png", content)) for n, content in enumerate(contents)]


@pytest.mark.parametrize("name", list(odd_images()))
def test_odd_but_valid_images_are_answered_as_in_training(name: str) -> None:
    content = odd_images()[name]
    with served() as client:
        prediction = one(post(client, content))
    assert prediction["probabilities"] == pytest.approx(expected(content), abs=1e-6)


def test_the_answer_says_what_who_and_which() -> None:
    with served() as client:
        response = post(client, digit(3))
        again = post(client, digit(3))
    prediction, answer = one(response), response.json()
    wanted = expected(digit(3))
    assert prediction["label"] == max(wanted, key=wanted.__getitem__)
    ranked = sorted(wanted.values(), reverse=True)
    assert list(prediction["probabilities"].values()) == pytest.approx(ranked, abs=1e-6)
    assert (answer["model"], answer["version"]) == ("digits", "7")
    assert answer["milliseconds"] > 0
    assert one(again)["id"] != prediction["id"]


def test_forms_json_and_sagemaker_answer_alike() -> None:
    contents = [digit(n) for n in range(3)]
    texts = [base64.b64encode(content).decode() for content in contents]
    with served() as client:
        answers = [
            client.post("/predict", files=form(*contents)),
            client.post("/predict/batch", files=form(*contents)),
            client.post("/predict/batch", json={"images": texts}),
            client.post("/invocations", json={"images": texts}),
        ]
        assert client.get("/ping").status_code == 200
    labels = [[p["probabilities"] for p in answer.json()["predictions"]] for answer in answers]
    for row in labels:
        for got, content in zip(row, contents, strict=True):
            assert got == pytest.approx(expected(content), abs=1e-6)


BAD_IMAGES = {
    "empty": (b"", "empty"),
    "text": (b"hello", "not an image"),
    "truncated": (encode(picture(), "JPEG")[:300], "Truncated"),
    "bomb": (encode(Image.new("1", (12_000, 12_000))), "12000x12000 pixels are more than"),
    "32 bit": (encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "32 bits"),
    "narrow": (encode(Image.new("L", (400, 1))), "the longer side is more than"),
}


@pytest.mark.parametrize("name", list(BAD_IMAGES))
def test_an_image_that_cannot_be_used_is_refused_with_its_reason(name: str) -> None:
    content, reason = BAD_IMAGES[name]
    with served() as client:
        alone = post(client, content)
        among = client.post("/predict/batch", files=form(digit(), content))
        assert post(client, digit()).status_code == 200
    assert (alone.status_code, kind(alone)) == (422, "image")
    assert reason in alone.json()["detail"]
    assert (among.status_code, kind(among)) == (422, "image")
    assert "image 1 cannot be used" in among.json()["detail"]


JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data; boundary=b"
BAD_BODIES: dict[str, tuple[str, bytes, int, str]] = {
    "no JSON": (JSON_TYPE, b"{", 400, "json"),
    "deep JSON": (JSON_TYPE, b"[" * 100_000, 400, "json"),
    "no UTF-8": (JSON_TYPE, b"\xff\xfe{", 400, "json"),
    "a list": (JSON_TYPE, b"[]", 422, "json"),
    "nothing in it": (JSON_TYPE, b"{}", 422, "missing-field"),
    "no images": (JSON_TYPE, b'{"images": []}', 422, "missing-field"),
    "another field": (JSON_TYPE, b'{"urls": ["http://localhost/x.png"]}', 422, "unknown-field"),
    "a number": (JSON_TYPE, b'{"images": [1]}', 422, "json"),
    "a URL": (JSON_TYPE, b'{"images": ["http://localhost/x.png"]}', 422, "base64"),
    "no base64": (JSON_TYPE, '{"images": ["é"]}'.encode(), 422, "base64"),
    "no boundary": ("multipart/form-data", b"x", 400, "form"),
    "no form": (FORM_TYPE, b"\r\n\r\nnonsense", 400, "form"),
    "an unfinished form": (FORM_TYPE, b"--b\r\nContent-Disposition: form-da", 400, "form"),
    "text in a form": (
        FORM_TYPE, b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n--b--\r\n',
        422, "not-a-file",
    ),
    "a stranger in a form": (
        FORM_TYPE,
        b'--b\r\nContent-Disposition: form-data; name="u"; filename="x"\r\n\r\nx\r\n--b--\r\n',
        422, "unknown-field",
    ),
    "another type": ("application/x-www-form-urlencoded", b"images=1", 415, "content-type"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD_BODIES))
def test_a_body_that_cannot_be_used_is_refused_with_its_reason(name: str) -> None:
    content_type, body, status, wanted = BAD_BODIES[name]
    headers = {"Content-Type": content_type}
    with served() as client:
        response = client.post("/predict/batch", content=body, headers=headers)
    assert (response.status_code, kind(response)) == (status, wanted)


def test_unknown_paths_and_methods_are_problems_too() -> None:
    with served() as client:
        assert kind(client.get("/nowhere")) == "not-found"
        assert kind(client.get("/predict")) == "method-not-allowed"
        assert kind(client.get("/assets/..%2f__init__.py")) == "not-found"


def test_the_postprocessor_abstains_ranks_and_renames() -> None:
    settings = {"top_k": 2, "abstain_below": 0.999, "labels": {"0": "zero"}}
    with served(postprocessor={"name": "ranked", "settings": settings}) as client:
        prediction = one(post(client, digit(0)))
    wanted = sorted(expected(digit(0)).items(), key=lambda item: -item[1])[:2]
    assert prediction["label"] is None
    named = {("zero" if name == "0" else name): value for name, value in wanted}
    assert prediction["probabilities"] == pytest.approx(named, abs=1e-6)


def test_thresholds_are_of_each_class() -> None:
    scores = expected(digit(0))
    best = max(scores, key=scores.__getitem__)
    for least, label in ((scores[best] - 0.01, best), (scores[best] + 0.01, None)):
        chosen = {"settings": {"thresholds": {best: least}}}
        with served(postprocessor=chosen) as client:
            assert one(post(client, digit(0)))["label"] == label


def test_a_postprocessor_must_exist_and_fit_the_classes() -> None:
    with pytest.raises(ValueError, match="no postprocessor 'best'; there are: ranked"):
        digits_bundle(postprocessor={"name": "best"})
    with pytest.raises(ValueError, match="top_k"):
        digits_bundle(postprocessor={"settings": {"top_k": 0}})
    bundle = digits_bundle(postprocessor={"settings": {"labels": {"cat": "Katze"}}})
    with pytest.raises(ConfigError, match="knows no class 'cat'"):
        create_app(bundle)


def test_model_info_says_what_is_served_and_its_present_stage(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with served(state_file=state) as client:
        assert client.get("/model-info").json()["stage"] is None
        state.write_text(json.dumps({"stage": "staging"}))
        information = client.get("/model-info").json()
        state.write_text(json.dumps({"stage": "production"}))
        assert client.get("/model-info").json()["stage"] == "production"
    assert information["stage"] == "staging"
    assert information["input"] == {"height": 8, "width": 8, "channels": 1}
    assert information["classes"] == CLASSES
    assert information["predictor"] == digits_predictor("small_cnn")[0].fingerprint


def test_metrics_count_what_happened() -> None:
    with served() as client:
        post(client, digit())
        post(client, b"no image")
        client.get("/nowhere")
        text = client.get("/metrics").text
    assert 'cv_factory_requests_total{route="/predict",status="200"} 1.0' in text
    assert 'cv_factory_requests_total{route="other",status="404"} 1.0' in text
    assert 'cv_factory_problems_total{kind="image"} 1.0' in text
    assert "cv_factory_batch_images_count 1.0" in text


def test_every_prediction_can_be_found_again(tmp_path: Path) -> None:
    with served(log={"predictions": str(tmp_path / "log")}) as client:
        answer = client.post("/predict", files=form(digit(0), digit(1)))
    predictions = answer.json()["predictions"]
    assert [p["id"] for p in read_predictions(tmp_path / "log")] == [p["id"] for p in predictions]
    found = find_prediction(tmp_path / "log", predictions[1]["id"])
    assert found is not None
    assert (found["version"], found["label"]) == ("7", predictions[1]["label"])
    assert len(found["features"]) == 16
    assert found["request_id"] == answer.headers["x-request-id"]
    assert find_prediction(tmp_path / "log", "0000") is None


def test_a_predictor_that_answers_otherwise_than_at_export_is_not_served(tmp_path: Path) -> None:
    good = digits_bundle()
    changed = replace(good, predictor=with_wrong_golden_samples(good.predictor))
    refused = "digits version 7 answers its golden samples differently"
    with pytest.raises(ArtifactError, match=refused):
        create_app(changed)
    changed.save(tmp_path)
    image = tmp_path / "digit.png"
    image.write_bytes(digit())
    arguments = [str(image), "--bundle", str(tmp_path)]
    with pytest.raises(ArtifactError, match=refused):
        predict_command.main(arguments, standalone_mode=False)


def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    bundle = digits_bundle(limits={"max_images": 3})
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.serving == bundle.serving
    assert loaded.predictor.fingerprint == bundle.predictor.fingerprint
    assert (loaded.model_name, loaded.version) == ("digits", "7")


def test_a_damaged_or_mixed_up_bundle_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    digits_bundle().save(first)
    other = digits_predictor("logistic_regression")[0]
    Bundle(other, digits_bundle().serving, "digits", "8", "2026").save(second)
    (first / "predictor").rename(tmp_path / "aside")
    (second / "predictor").rename(first / "predictor")
    with pytest.raises(ArtifactError, match="another predictor"):
        Bundle.load(first)
    (first / "serving.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"serving\.json"):
        Bundle.load(first)


def test_pages_are_safe_and_the_description_has_examples_that_work() -> None:
    with served() as client:
        for path in ("/", "/docs"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
        description = client.get("/openapi.json").json()
        content = description["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
        answer = client.post("/predict/batch", json=content["application/json"]["example"])
        assert answer.status_code == 200
        assert kind(client.get("/model-card")) == "no-card"
