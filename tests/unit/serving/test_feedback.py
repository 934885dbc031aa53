"""``POST /feedback``: labels are stored before the answer, or refused with their reason."""

import asyncio
import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from cv_factory.artifacts.files import write_atomic
from cv_factory.serving.auth.api_keys import ApiKeyStore, add_key
from cv_factory.serving.logging.feedback_log import (
    FeedbackLog,
    feedback_files,
    read_feedback,
    remove_feedback,
)
from cv_factory.serving.logging.prediction_log import read_predictions
from cv_factory_client import AsyncPredictionClient, ClientConfigError, Label, PredictionClient
from tests.support.digits_service import DigitsService, app_client, digit_png, post_image
from tests.support.digits_service import problem_kind as kind
from tests.support.waiting import has_lock_waiter, wait_until

HMAC = "ab" * 32


def stored(folder: Path) -> list[dict[str, Any]]:
    return [record for file in feedback_files(folder) for record in read_feedback(file)]


def give(client: httpx.Client, *labels: Any, **options: Any) -> httpx.Response:
    return client.post("/feedback", json={"labels": labels}, **options)


def test_labels_are_stored_with_their_source_and_the_key_that_brought_them(tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "log"
    key = add_key(keys, "labelling", ["feedback"], None)
    with app_client(ApiKeyStore(keys), log={"predictions": str(log)}) as client:
        response = give(
            client,
            {"prediction_id": "a", "label": "3", "source": "person:ann", "is_blind": True},
            {"image_hmac": HMAC, "label": "4"},
            headers={"X-API-Key": key},
        )
        metrics = client.get("/metrics").text
    assert response.json() == {"accepted": 2}
    by_person, by_system = stored(log)
    assert by_person.pop("time") == by_system.pop("time")
    assert len({by_person.pop("id"), by_system.pop("id")}) == 2
    common = {"schema": 1, "model": "digits", "key": "labelling"}
    assert by_person == {
        **common, "prediction_id": "a", "image_hmac": None, "label": "3", "source": "person:ann",
        "is_blind": True,
    }  # fmt: skip
    assert by_system == {
        **common, "prediction_id": None, "image_hmac": HMAC, "label": "4",
        "source": "system:labelling", "is_blind": False,
    }  # fmt: skip
    assert "cv_factory_labels_total 2.0" in metrics
    assert not list(read_predictions(log))


def test_only_the_role_feedback_gives_labels_and_it_predicts_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    names = {"ann": "predict", "bob": "feedback", "eve": "admin"}
    headers = {n: {"X-API-Key": add_key(keys, n, [role], None)} for n, role in names.items()}  # type: ignore[list-item]
    label = {"prediction_id": "a", "label": "3"}
    with app_client(ApiKeyStore(keys), log={"predictions": str(tmp_path / "log")}) as client:
        assert give(client, label).status_code == 401
        statuses = {name: give(client, label, headers=h).status_code for name, h in headers.items()}
        assert statuses == {"ann": 403, "bob": 200, "eve": 200}
        assert post_image(client, digit_png(), headers=headers["bob"]).status_code == 403


def test_a_request_with_a_wrong_label_stores_none_and_names_each(tmp_path: Path) -> None:
    good = {"prediction_id": "a", "label": "3"}
    wrong = [
        {"label": "3"},
        {"prediction_id": "a", "label": ""},
        {"prediction_id": "a", "label": "3", "source": "ann"},
        {"prediction_id": "a", "label": "3\n4"},
        {"image_hmac": "xy", "label": "3"},
        {"prediction_id": "a", "label": "3", "certain": True},
        "3",
    ]
    with app_client(log={"predictions": str(tmp_path)}) as client:
        response = give(client, good, *wrong)
    assert (response.status_code, kind(response)) == (422, "label")
    detail = response.json()["detail"]
    assert all(f"label {n}: " in detail for n in range(1, 8)), detail
    assert "label 0" not in detail
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", (400, "json")),
        (b'{"labels": []}', (422, "json")),
        (b"[1]", (422, "json")),
        (b'{"labels": [1], "more": 2}', (422, "json")),
        (b'{"labels": [1, 2, 3]}', (413, "too-many-labels")),
        (b'"' + b"x" * 2000, (413, "body-too-large")),
    ],
)
def test_a_malformed_or_too_large_request_is_refused(
    tmp_path: Path, body: bytes, problem: tuple[int, str]
) -> None:
    limits = {"max_labels": 2, "max_body_bytes": 1024}
    with app_client(log={"predictions": str(tmp_path)}, limits=limits) as client:
        response = client.post("/feedback", content=body)
    assert (response.status_code, kind(response)) == problem


def test_labels_have_a_rate_of_their_own(tmp_path: Path) -> None:
    label = {"prediction_id": "a", "label": "3"}
    rate = {"labels_per_key": 1.0, "burst_seconds": 3.0}
    with app_client(log={"predictions": str(tmp_path)}, rate=rate) as client:
        assert give(client, label, label, label).status_code == 200
        refused = give(client, label, label, label)
        assert (refused.status_code, kind(refused)) == (429, "too-many-requests")
        assert "1 labels a second" in refused.json()["detail"]
        assert post_image(client, digit_png()).status_code == 200
    assert len(stored(tmp_path)) == 3


def test_labels_that_cannot_be_stored_are_refused_and_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    label = {"prediction_id": "a", "label": "3"}
    with app_client(log={"predictions": str(folder)}) as client:
        folder.rmdir()
        folder.write_text("a file in its place")
        response = give(client, label)
        assert (response.status_code, kind(response)) == (503, "unwritable")
        assert response.headers["retry-after"] == "5"
        assert str(folder) not in response.text
        folder.unlink()
        assert give(client, label).status_code == 200
    assert len(stored(folder)) == 1
    with app_client() as client:
        assert kind(give(client, label)) == "no-prediction-log"


def test_the_same_request_at_two_services_makes_records_of_one_id(tmp_path: Path) -> None:
    # The proxy sends a shadow copies with the same request id.
    label = {"prediction_id": "a", "label": "3"}
    for _ in range(2):
        with app_client(log={"predictions": str(tmp_path)}) as client:
            give(client, label, label, headers={"X-Request-ID": "one"})
    assert len(stored(tmp_path)) == 4
    assert len({record["id"] for record in stored(tmp_path)}) == 2


def test_files_begin_anew_beyond_their_size_and_a_cut_line_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = FeedbackLog(tmp_path, 10)
    for number in range(3):
        log.append([{"id": number}, {"id": number}])
    first, *others = feedback_files(tmp_path)
    assert len(others) == 2
    first.write_bytes(first.read_bytes()[:-3])
    assert [record["id"] for record in stored(tmp_path)] == [0, 1, 1, 2, 2]
    first.write_bytes(b"damaged\n" + first.read_bytes())
    assert [record["id"] for record in stored(tmp_path)] == [0, 1, 1, 2, 2]
    assert f"{first}, line 1: no label can be read" in caplog.text
    assert remove_feedback(tmp_path, lambda record: record["id"] == 1) == 2
    assert [record["id"] for record in stored(tmp_path)] == [0, 2, 2]


def test_what_is_added_while_labels_are_removed_twice_stays(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path, 2**20)
    log.append([{"id": 0}, {"id": 1}])
    (path,) = feedback_files(tmp_path)
    with ThreadPoolExecutor(1) as pool, path.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        removal = pool.submit(remove_feedback, tmp_path, lambda record: record["id"] == 1)
        inode = path.stat().st_ino
        wait_until(lambda: has_lock_waiter(inode))
        write_atomic(path, path.read_bytes() + b'{"id": 2}\n{}\n')
        fcntl.flock(opened, fcntl.LOCK_UN)
        assert removal.result() == 1
    assert stored(tmp_path) == [{"id": 0}, {"id": 2}, {}]


def test_both_clients_give_labels_over_http_alone(tmp_path: Path) -> None:
    labels = [Label("3", prediction_id="a", source="person:ann"), Label("4", image_hmac=HMAC)]
    with app_client(log={"predictions": str(tmp_path)}) as http:
        assert isinstance(http, TestClient)
        with PredictionClient("http://service", transport=http._transport) as client:
            assert client.feedback(labels) == 2
            assert client.feedback([]) == 0
        transport = httpx.ASGITransport(http.app)

        async def give_labels() -> int:
            async with AsyncPredictionClient("http://service", transport=transport) as client:
                return await client.feedback(labels)

        assert asyncio.run(give_labels()) == 2
    assert [record["label"] for record in stored(tmp_path)] == ["3", "4"] * 2
    with PredictionClient("grpc://127.0.0.1:1") as client, pytest.raises(ClientConfigError):
        client.feedback(labels)


def test_a_service_answers_the_route_without_bentomls_middleware(service: DigitsService) -> None:
    with httpx.Client(base_url=service.url, headers={"X-API-Key": service.key}) as client:
        response = give(client, {"prediction_id": "a", "label": "3"})
    assert response.json() == {"accepted": 1}
    assert stored(service.folder / "log")[-1]["key"] == "ann"
