"""Remembered answers: the same answer under a new id, of this version alone, and not too many."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from cv_factory.serving.application import Application
from cv_factory.serving.logging.prediction_log import read_predictions
from tests.support.digits_service import (
    InProcessTransport,
    app_client,
    digit_png,
    digits_bundle,
    post_image,
)

ON = {"max_entries": 3}


def ask(client: httpx.Client, *images: bytes, **headers: str) -> tuple[str, dict[str, Any]]:
    """Send images as one request; return what the answer says of the cache, and the answer."""
    files = [("images", (str(n), image)) for n, image in enumerate(images)]
    response = client.post("/predict/batch", files=files, headers=headers)
    assert response.status_code == 200, response.text
    return response.headers["x-cache"], response.json()


def labels(answer: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    return [(one["label"], one["probabilities"]) for one in answer["predictions"]]


def test_an_image_that_was_asked_about_is_answered_alike_under_a_new_id(tmp_path: Path) -> None:
    with app_client(cache=ON, log={"predictions": str(tmp_path)}) as client:
        told, first = ask(client, digit_png(0), digit_png(1))
        assert told == "miss"
        assert "cached" not in first
        told, again = ask(client, digit_png(1))
        assert (told, again["cached"]) == ("hit", True)
        assert labels(again) == labels(first)[1:]
        figures = client.get("/metrics").text
        on_sagemaker = {"X-Amzn-SageMaker-Custom-Attributes": "cache-control=no-cache"}
        for anew in ({"Cache-Control": "no-cache"}, on_sagemaker):
            told, _ = ask(client, digit_png(1), **anew)
            assert told == "miss"
    ids = [one["id"] for answer in (first, again) for one in answer["predictions"]]
    assert len(set(ids)) == 3
    logged = list(read_predictions(tmp_path))
    assert [p["id"] for p in logged][:3] == ids
    assert logged[1]["features"] == logged[2]["features"]
    assert 'cv_factory_cache_lookups_total{found="true"} 1.0' in figures
    assert 'cv_factory_cache_lookups_total{found="false"} 1.0' in figures
    assert 'cv_factory_requests_total{route="/predict/batch",status="200"} 2.0' in figures


def test_the_images_that_were_not_asked_for_longest_are_forgotten() -> None:
    with app_client(cache=ON) as client:
        for number in (0, 1, 2):
            ask(client, digit_png(number))
        assert ask(client, digit_png(0))[0] == "hit"
        ask(client, digit_png(3))
        assert ask(client, digit_png(1))[0] == "miss", "1 was not asked for longest"
        assert [ask(client, digit_png(number))[0] for number in (0, 3, 1, 2)] == [
            *["hit"] * 3,
            "miss",
        ]


def test_a_request_with_an_unknown_or_unusable_image_is_looked_at_as_a_whole() -> None:
    with app_client(cache=ON) as client:
        ask(client, digit_png(0))
        assert ask(client, digit_png(0), digit_png(1))[0] == "miss"
        files = [("images", ("0", digit_png(0))), ("images", ("1", b"no image"))]
        refused = client.post("/predict/batch", files=files)
        assert refused.status_code == 422
        assert "image 1 cannot be used" in refused.json()["detail"]


def test_versions_and_postprocessors_have_nothing_in_common() -> None:
    bundle = digits_bundle(cache=ON)
    ranked = {"postprocessor": {"name": "ranked", "settings": {"top_k": 1}}, "cache": ON}
    seen = []
    for one in (bundle, replace(bundle, version="8"), digits_bundle(**ranked)):
        app = Application(one)
        with httpx.Client(transport=InProcessTransport(app), base_url="http://test") as client:
            told, answer = ask(client, digit_png(0))
        app.close()
        seen.append((told, answer["version"], len(answer["predictions"][0]["probabilities"])))
    assert seen == [("miss", "7", 10), ("miss", "8", 10), ("miss", "7", 1)]


def test_without_the_setting_nothing_is_remembered() -> None:
    with app_client() as client:
        answers = [post_image(client, digit_png(0)) for _ in range(2)]
    assert not any("x-cache" in answer.headers for answer in answers)
    assert not any("cached" in json.loads(answer.text) for answer in answers)
