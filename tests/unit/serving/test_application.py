"""Responses of the application: the predictor's predictions, and a problem for everything else."""

import base64
import gzip
import io
import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from cli.main import command
from cv_factory.data.decode import decode
from cv_factory.data.encode import encode_png
from cv_factory.errors import ArtifactError, ConfigError
from cv_factory.monitoring.build_reference import build_reference
from cv_factory.serving.application import Application
from cv_factory.serving.auth.api_keys import ApiKeyStore, add_key
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.logging.prediction_log import find_prediction, read_predictions
from tests.support.digits_service import (
    app_client,
    digit_png,
    digits_bundle,
    post_image,
    problem_kind,
)
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


def expected_probabilities(image: bytes) -> dict[str, float]:
    predictor, _, _ = digits_predictor("logistic_regression")
    pixels = decode(image, height=8, width=8, channels=1, max_pixels=10**8).pixels
    probabilities = predictor.predict(pixels[None]).probabilities[0]
    return dict(zip(CLASSES, probabilities.tolist(), strict=True))


def single_prediction(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    [prediction] = response.json()["predictions"]
    return dict(prediction)


def form(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{n}.png", image)) for n, image in enumerate(images)]


@pytest.mark.parametrize("name", list(odd_images()))
def test_odd_but_valid_images_are_decoded_as_in_training(name: str) -> None:
    image = odd_images()[name]
    with app_client() as client:
        prediction = single_prediction(post_image(client, image))
    assert prediction["probabilities"] == pytest.approx(expected_probabilities(image), abs=1e-6)


def test_a_response_has_label_ranking_model_version_and_id() -> None:
    with app_client() as client:
        response = post_image(client, digit_png(3))
        second = post_image(client, digit_png(3))
    prediction, body = single_prediction(response), response.json()
    probabilities = expected_probabilities(digit_png(3))
    assert prediction["label"] == max(probabilities, key=probabilities.__getitem__)
    ranked = sorted(probabilities.values(), reverse=True)
    assert list(prediction["probabilities"].values()) == pytest.approx(ranked, abs=1e-6)
    assert (body["model"], body["version"]) == ("digits", "7")
    assert body["milliseconds"] > 0
    assert single_prediction(second)["id"] != prediction["id"]


def test_forms_json_and_sagemaker_predict_alike() -> None:
    images = [digit_png(n) for n in range(3)]
    texts = [base64.b64encode(image).decode() for image in images]
    with app_client() as client:
        responses = [
            client.post("/predict", files=form(*images)),
            client.post("/predict/batch", files=form(*images)),
            client.post("/predict/batch", json={"images": texts}),
            client.post("/invocations", json={"images": texts}),
        ]
        assert client.get("/ping").status_code == 200
    for response in responses:
        predictions = response.json()["predictions"]
        for prediction, image in zip(predictions, images, strict=True):
            expected = expected_probabilities(image)
            assert prediction["probabilities"] == pytest.approx(expected, abs=1e-6)


BAD_IMAGES = {
    "empty": (b"", "empty"),
    "text": (b"hello", "not an image"),
    "truncated": (encode(picture(), "JPEG")[:300], "Truncated"),
    "bomb": (encode(Image.new("1", (12_000, 12_000))), "12000x12000 pixels are more than"),
    "float": (encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
    "narrow": (encode(Image.new("L", (400, 1))), "the longer side is more than"),
}


@pytest.mark.parametrize("name", list(BAD_IMAGES))
def test_an_unusable_image_is_rejected_with_its_reason(name: str) -> None:
    image, reason = BAD_IMAGES[name]
    with app_client() as client:
        alone = post_image(client, image)
        second = client.post("/predict/batch", files=form(digit_png(), image))
        assert post_image(client, digit_png()).status_code == 200
    assert (alone.status_code, problem_kind(alone)) == (422, "image")
    assert reason in alone.json()["detail"]
    assert (second.status_code, problem_kind(second)) == (422, "image")
    assert "image 1 cannot be used" in second.json()["detail"]


JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data; boundary=b"
BAD_BODIES: dict[str, tuple[str, bytes]] = {
    "no JSON": (JSON_TYPE, b"{"),
    "deep JSON": (JSON_TYPE, b"[" * 100_000),
    "no UTF-8": (JSON_TYPE, b"\xff\xfe{"),
    "a list": (JSON_TYPE, b"[]"),
    "nothing in it": (JSON_TYPE, b"{}"),
    "no images": (JSON_TYPE, b'{"images": []}'),
    "another field": (JSON_TYPE, b'{"urls": ["http://localhost/x.png"]}'),
    "a number": (JSON_TYPE, b'{"images": [1]}'),
    "a URL": (JSON_TYPE, b'{"images": ["http://localhost/x.png"]}'),
    "no base64": (JSON_TYPE, '{"images": ["é"]}'.encode()),
    "cut base64": (JSON_TYPE, b'{"images": ["QUJDR"]}'),
    "no gzip": (f"{JSON_TYPE}|gzip", b"{}"),
    "cut gzip": (f"{JSON_TYPE}|gzip", gzip.compress(b"{}")[:-9]),
    "brotli": (f"{JSON_TYPE}|br", b"{}"),
    "no boundary": ("multipart/form-data", b"x"),
    "no form": (FORM_TYPE, b"\r\n\r\nnonsense"),
    "an unfinished form": (FORM_TYPE, b"--b\r\nContent-Disposition: form-da"),
    "text in a form": (
        FORM_TYPE, b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n--b--\r\n',
    ),
    "an unknown field of a form": (
        FORM_TYPE,
        b'--b\r\nContent-Disposition: form-data; name="u"; filename="x"\r\n\r\nx\r\n--b--\r\n',
    ),
    "another type": ("application/x-www-form-urlencoded", b"images=1"),
}  # fmt: skip


#: Introduce the text of a parser, which depends on its version.
_PARSER_ERRORS = ("is not valid JSON: ", "is malformed: ", "is not gzip: ")


def test_unusable_bodies_are_rejected_with_their_reasons(
    golden: Callable[[str, str], None],
) -> None:
    details = {}
    with app_client() as client:
        for name, (content_type, body) in BAD_BODIES.items():
            media_type, _, encoding = content_type.partition("|")
            headers = {"Content-Type": media_type, "Content-Encoding": encoding}
            response = client.post("/predict/batch", content=body, headers=headers)
            detail = response.json()["detail"]
            for text in _PARSER_ERRORS:
                start, separator, _ = detail.partition(text)
                detail = f"{start}{text}…" if separator else detail
            details[name] = f"{response.status_code} {problem_kind(response)}: {detail}"
    golden("body_problems.txt", "".join(f"{name}: {text}\n" for name, text in details.items()))


def base64_variants(image: bytes) -> dict[str, str]:
    plain = base64.b64encode(image).decode()
    return {
        "data URL": f"data:image/png;base64,{plain}",
        "data URL with parameters": f"data:image/png;name=a.png;base64,{plain}",
        "data URL in lines": f"data:image/png;base64,\n{plain}\n",
        "data URL with blanks": f" data:image/png; base64, {plain}",
        "lines": base64.encodebytes(image).decode(),
        "MIME lines": "\r\n".join(textwrap.wrap(plain, 76)),
        "URL-safe": base64.urlsafe_b64encode(image).decode(),
        "without padding": plain.rstrip("="),
    }


def test_base64_is_accepted_as_clients_write_it() -> None:
    image = digit_png(3)
    # Both characters in which the alphabets differ, and padding.
    image += b"\xfb\xff\xfe" + bytes((1 - len(image)) % 3)
    variants = base64_variants(image)
    assert {"-", "_"} <= set(variants["URL-safe"])
    assert variants["without padding"] != base64.b64encode(image).decode()
    with app_client() as client:
        response = client.post("/predict/batch", json={"images": list(variants.values())})
    assert response.status_code == 200, response.text
    labels = [prediction["label"] for prediction in response.json()["predictions"]]
    probabilities = expected_probabilities(digit_png(3))
    assert set(labels) == {max(probabilities, key=probabilities.__getitem__)}


def test_a_compressed_body_is_decompressed_within_the_limits() -> None:
    image = digit_png(3)
    with app_client(limits={"max_body_bytes": 2000}) as client:
        for coding in ("gzip", "x-gzip", "GZIP"):
            headers = {"Content-Encoding": coding}
            response = post_image(client, gzip.compress(image), headers=headers)
            prediction = single_prediction(response)
            assert prediction["probabilities"] == pytest.approx(
                expected_probabilities(image), abs=1e-6
            )
        bomb = post_image(client, gzip.compress(bytes(10**6)), headers=headers)
        other = post_image(client, image, headers={"Content-Encoding": "br"})
        assert post_image(client, image, headers={"Content-Encoding": "identity"}).is_success
    assert (bomb.status_code, problem_kind(bomb)) == (413, "body-too-large")
    assert (other.status_code, problem_kind(other)) == (415, "content-encoding")
    assert other.headers["accept-encoding"] == "gzip, deflate, identity"


def test_browsers_of_other_origins_are_served_where_they_are_named() -> None:
    preflight = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-api-key",
    }
    with app_client(access={"origins": ["https://app.example"]}) as client:
        response = client.options("/predict", headers=preflight)
        other = client.options("/predict", headers={**preflight, "Origin": "https://evil.example"})
        rejected = post_image(client, b"no image", headers={"Origin": "https://app.example"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in other.headers
    assert problem_kind(rejected) == "image"
    assert rejected.headers["access-control-allow-origin"] == "https://app.example"
    with app_client() as client:
        assert problem_kind(client.options("/predict", headers=preflight)) == "method-not-allowed"
        response = post_image(client, digit_png(), headers={"Origin": "https://app.example"})
        assert "access-control-allow-origin" not in response.headers
    for origin in ("https://app.example/", "app.example", "https://app.example/page"):
        with pytest.raises(ValueError, match="origins"):
            digits_bundle(access={"origins": [origin]})


def test_golden_samples_that_verify_a_service_are_not_predictions(tmp_path: Path) -> None:
    golden = encode_png(digits_bundle().predictor.golden.images[0])
    headers = {"X-Request-ID": "golden-samples"}
    with app_client(log={"predictions": str(tmp_path)}) as client:
        assert post_image(client, golden, headers=headers).is_success
        assert "cv_factory_predictions_total{" not in client.get("/metrics").text
        # Who sends the id with other images is counted, and golden samples without the id are.
        other = single_prediction(post_image(client, encode(picture()), headers=headers))
        same = single_prediction(post_image(client, golden))
        assert problem_kind(post_image(client, b"no image", headers=headers)) == "image"
        text = client.get("/metrics").text
    counts = re.findall(r"cv_factory_predictions_total\{.*\} (.*)", text)
    assert sum(map(float, counts)) == 2
    assert [p["id"] for p in read_predictions(tmp_path)] == [other["id"], same["id"]]


def test_unknown_paths_and_methods_are_problems_too() -> None:
    with app_client() as client:
        slash = post_image(client, digit_png(), path="/predict/")
        assert (slash.status_code, problem_kind(slash)) == (404, "not-found")
        assert "send the request to /predict, without the slash" in slash.json()["detail"]
        assert problem_kind(client.get("/nowhere")) == "not-found"
        assert problem_kind(client.get("/predict")) == "method-not-allowed"
        assert problem_kind(client.get("/assets/..%2f__init__.py")) == "not-found"


def test_the_postprocessor_abstains_ranks_and_renames() -> None:
    settings = {"top_k": 2, "abstain_below": 0.999, "labels": {"0": "zero"}}
    with app_client(postprocessor={"name": "ranked", "settings": settings}) as client:
        prediction = single_prediction(post_image(client, digit_png(0)))
    ranked = sorted(expected_probabilities(digit_png(0)).items(), key=lambda item: -item[1])
    assert prediction["label"] is None
    expected = {("zero" if name == "0" else name): value for name, value in ranked[:2]}
    assert prediction["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_each_class_has_its_threshold() -> None:
    probabilities = expected_probabilities(digit_png(0))
    best = max(probabilities, key=probabilities.__getitem__)
    for margin, label in ((-0.01, best), (0.01, None)):
        settings = {"thresholds": {best: probabilities[best] + margin}}
        with app_client(postprocessor={"settings": settings}) as client:
            assert single_prediction(post_image(client, digit_png(0)))["label"] == label


def test_a_postprocessor_must_exist_and_fit_the_classes() -> None:
    with pytest.raises(ValueError, match=r"no postprocessor 'best'\. Valid names: ranked"):
        digits_bundle(postprocessor={"name": "best"})
    with pytest.raises(ValueError, match="top_k"):
        digits_bundle(postprocessor={"settings": {"top_k": 0}})
    bundle = digits_bundle(postprocessor={"settings": {"labels": {"cat": "Katze"}}})
    with pytest.raises(ConfigError, match="has no class 'cat'"):
        Application(bundle)


def test_model_info_describes_the_model_and_its_present_stage(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with app_client(state_file=state) as client:
        assert client.get("/model-info").json()["stage"] is None
        state.write_text(json.dumps({"stage": "staging"}))
        information = client.get("/model-info").json()
        state.write_text(json.dumps({"stage": "production"}))
        assert client.get("/model-info").json()["stage"] == "production"
    assert information["stage"] == "staging"
    assert information["input"] == {"height": 8, "width": 8, "channels": 1}
    assert information["classes"] == CLASSES
    assert information["predictor"] == digits_predictor("logistic_regression")[0].fingerprint


def test_metrics_count_requests_problems_and_batches() -> None:
    with app_client() as client:
        post_image(client, digit_png())
        post_image(client, b"no image")
        client.get("/nowhere")
        text = client.get("/metrics").text
    assert 'cv_factory_requests_total{route="/predict",status="200"} 1.0' in text
    assert 'cv_factory_requests_total{route="other",status="404"} 1.0' in text
    assert 'cv_factory_problems_total{kind="image"} 1.0' in text
    assert "cv_factory_batch_images_count 1.0" in text


def test_every_prediction_is_logged(tmp_path: Path) -> None:
    with app_client(log={"predictions": str(tmp_path / "log")}) as client:
        response = client.post("/predict", files=form(digit_png(0), digit_png(1)))
    predictions = response.json()["predictions"]
    logged = [p["id"] for p in read_predictions(tmp_path / "log")]
    assert logged == [p["id"] for p in predictions]
    entry = find_prediction(tmp_path / "log", predictions[1]["id"])
    assert entry is not None
    assert (entry["version"], entry["label"]) == ("7", predictions[1]["label"])
    assert len(entry["features"]) == 16
    assert entry["request_id"] == response.headers["x-request-id"]
    assert find_prediction(tmp_path / "log", "0000") is None


def test_a_predictor_with_other_answers_than_at_export_is_not_served(tmp_path: Path) -> None:
    bundle = digits_bundle()
    changed = replace(bundle, predictor=with_wrong_golden_samples(bundle.predictor))
    message = "digits version 7 answers its golden samples differently"
    with pytest.raises(ArtifactError, match=message):
        Application(changed)
    changed.save(tmp_path)
    image = tmp_path / "digit.png"
    image.write_bytes(digit_png())
    arguments = ["predict", str(image), "--bundle", str(tmp_path)]
    with pytest.raises(ArtifactError, match=message):
        command.main(arguments, standalone_mode=False)


def test_a_bundle_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    bundle = digits_bundle(limits={"max_images": 3})
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.serving == bundle.serving
    assert loaded.predictor.fingerprint == bundle.predictor.fingerprint
    assert (loaded.model_name, loaded.version) == ("digits", "7")


def test_a_bundle_holds_the_reference_of_its_own_predictor(tmp_path: Path) -> None:
    predictor, dataset, split = digits_predictor("logistic_regression")
    reference = build_reference(predictor, dataset, split, corrupted_images=0, seed=0)
    folders = [tmp_path / name for name in ("without", "with", "foreign")]
    references = [None, reference, replace(reference, predictor_fingerprint="f" * 64)]
    for folder, held in zip(folders, references, strict=True):
        folder.mkdir()
        replace(digits_bundle(), reference=held).save(folder)
    assert Bundle.load(folders[0]).reference is None
    assert "reference" not in (folders[0] / "bundle.json").read_text(), "bytes as before"
    loaded = Bundle.load(folders[1]).reference
    assert loaded is not None
    assert loaded.class_names == dataset.class_names
    np.testing.assert_array_equal(loaded.test.probabilities, reference.test.probabilities)
    with pytest.raises(ArtifactError, match="reference is of another predictor"):
        Bundle.load(folders[2])


def test_a_service_names_the_gates_that_a_person_overrode(tmp_path: Path) -> None:
    line = "accuracy at least 0.9, by ada (2026-11-28 12:00:00 UTC, audit log entry 7): a demo"
    bundle = replace(digits_bundle(), overrides=[line])
    bundle.save(tmp_path)
    application = Application(Bundle.load(tmp_path))
    try:
        information = TestClient(application).get("/model-info").json()
    finally:
        application.close()
    assert information["overrides"] == [line]


def test_a_damaged_or_mixed_up_bundle_is_rejected(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    digits_bundle().save(first)
    other = with_wrong_golden_samples(digits_predictor("logistic_regression")[0])
    Bundle(other, digits_bundle().serving, "digits", "8", "2026").save(second)
    (first / "predictor").rename(tmp_path / "aside")
    (second / "predictor").rename(first / "predictor")
    with pytest.raises(ArtifactError, match="another predictor"):
        Bundle.load(first)
    (first / "serving.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"serving\.json"):
        Bundle.load(first)


def test_samples_are_golden_samples_of_all_classes_for_those_who_may_predict(
    tmp_path: Path,
) -> None:
    golden = digits_bundle().predictor.golden
    with app_client() as client:
        images = client.get("/samples").json()["images"]
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(i)))) for i in images]
    stored = [image[..., 0].tobytes() for image in golden.images]
    predicted = [golden.probabilities[stored.index(p.tobytes())].argmax() for p in pixels]
    assert sorted(predicted) == sorted(set(golden.probabilities.argmax(axis=1)))[:10]
    file = tmp_path / "keys.json"
    key = add_key(file, "ann", ["predict"], None)
    with app_client(keys=ApiKeyStore(file)) as client:
        assert problem_kind(client.get("/samples")) == "unauthorized"
        assert client.get("/samples", headers={"X-API-Key": key}).json()["images"] == images


def test_pages_have_safe_headers_and_the_example_request_works() -> None:
    with app_client() as client:
        for path in ("/", "/docs"):
            page = client.get(path)
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "unsafe" not in page.headers["content-security-policy"]
            assert page.headers["x-frame-options"] == "DENY"
            assert page.headers["x-content-type-options"] == "nosniff"
            for name in re.findall(r'"(assets/[^"]+)"', page.text):
                first = client.get(f"/{name}")
                assert first.status_code == 200, name
                again = client.get(f"/{name}", headers={"If-None-Match": first.headers["etag"]})
                assert (again.status_code, again.content) == (304, b"")
        assert client.get("/assets/index.html").status_code == 404
        description = client.get("/openapi.json").json()
        content = description["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
        response = client.post("/predict/batch", json=content["application/json"]["example"])
        assert response.status_code == 200
        assert problem_kind(client.get("/model-card")) == "no-card"
