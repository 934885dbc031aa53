"""Cached predictions: equal, with an id of their own, of this version only, and bounded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from cv_factory.serving.application import Application
from cv_factory.serving.logging.prediction_log import read_predictions
from tests.support.digits_service import (
    app_client,
    digit_png,
    digits_bundle,
    post_image,
)

CACHE = {"max_entries": 3}


def predict(client: httpx.Client, *images: bytes, **headers: str) -> tuple[str, dict[str, Any]]:
    """Post images as one request; return the header ``X-Cache`` and the body."""
    files = [("images", (str(n), image)) for n, image in enumerate(images)]
    response = client.post("/predict/batch", files=files, headers=headers)
    assert response.status_code == 200, response.text
    return response.headers["x-cache"], response.json()


def outputs(body: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    return [(p["label"], p["probabilities"]) for p in body["predictions"]]


def test_a_cached_prediction_is_equal_and_has_an_id_of_its_own(tmp_path: Path) -> None:
    with app_client(cache=CACHE, log={"predictions": str(tmp_path)}) as client:
        status, first = predict(client, digit_png(0), digit_png(1))
        assert status == "miss"
        assert "cached" not in first
        status, second = predict(client, digit_png(1))
        assert (status, second["cached"]) == ("hit", True)
        assert outputs(second) == outputs(first)[1:]
        metrics = client.get("/metrics").text
        sagemaker = {"X-Amzn-SageMaker-Custom-Attributes": "cache-control=no-cache"}
        for no_cache in ({"Cache-Control": "no-cache"}, sagemaker):
            assert predict(client, digit_png(1), **no_cache)[0] == "miss"
    ids = [p["id"] for body in (first, second) for p in body["predictions"]]
    assert len(set(ids)) == 3
    logged = list(read_predictions(tmp_path))
    assert [p["id"] for p in logged][:3] == ids
    assert logged[1]["features"] == logged[2]["features"]
    assert 'cv_factory_cache_lookups_total{found="true"} 1.0' in metrics
    assert 'cv_factory_cache_lookups_total{found="false"} 1.0' in metrics
    assert 'cv_factory_requests_total{route="/predict/batch",status="200"} 2.0' in metrics


def test_the_least_recently_used_images_are_evicted() -> None:
    with app_client(cache=CACHE) as client:
        for number in (0, 1, 2):
            predict(client, digit_png(number))
        assert predict(client, digit_png(0))[0] == "hit"
        predict(client, digit_png(3))
        assert predict(client, digit_png(1))[0] == "miss", "1 was the least recently used"
        statuses = [predict(client, digit_png(number))[0] for number in (0, 3, 1, 2)]
        assert statuses == ["hit", "hit", "hit", "miss"]


def test_a_request_is_a_hit_only_as_a_whole() -> None:
    with app_client(cache=CACHE) as client:
        predict(client, digit_png(0))
        assert predict(client, digit_png(0), digit_png(1))[0] == "miss"
        files = [("images", ("0", digit_png(0))), ("images", ("1", b"no image"))]
        response = client.post("/predict/batch", files=files)
        assert response.status_code == 422
        assert "image 1 cannot be used" in response.json()["detail"]


def test_versions_and_postprocessors_share_nothing() -> None:
    bundle = digits_bundle(cache=CACHE)
    top_1: dict[str, Any] = {
        "postprocessor": {"name": "ranked", "settings": {"top_k": 1}},
        "cache": CACHE,
    }
    results = []
    for variant in (bundle, replace(bundle, version="8"), digits_bundle(**top_1)):
        app = Application(variant)
        status, body = predict(TestClient(app), digit_png(0))
        app.close()
        results.append((status, body["version"], len(body["predictions"][0]["probabilities"])))
    assert results == [("miss", "7", 10), ("miss", "8", 10), ("miss", "7", 1)]


def test_the_cache_is_off_by_default() -> None:
    with app_client() as client:
        responses = [post_image(client, digit_png(0)) for _ in range(2)]
    assert not any("x-cache" in response.headers for response in responses)
    assert not any("cached" in response.json() for response in responses)
