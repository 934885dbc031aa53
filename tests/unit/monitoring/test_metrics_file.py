"""Tests of ``cv_factory.monitoring.metrics_file``."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from cv_factory.monitoring.metrics_file import metrics_folder, read_metric, write_metrics


def _registry(value: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    gauge = Gauge("cv_factory_test_seconds", "Duration", ("model",), registry=registry)
    gauge.labels('digits "7"').set(value)
    return registry


def test_metrics_are_read_back_and_replaced_as_a_whole(tmp_path: Path) -> None:
    folder, labels = tmp_path / "textfile", {"model": 'digits "7"'}
    assert read_metric(folder, "test", "cv_factory_test_seconds", labels) is None
    for value in (1.5, 2.5):
        file = write_metrics(folder, "test", _registry(value))
        assert read_metric(folder, "test", "cv_factory_test_seconds", labels) == value
    assert read_metric(folder, "test", "cv_factory_test_seconds", {"model": "pets"}) is None
    assert [path.name for path in folder.iterdir()] == ["test.prom"]
    assert file.stat().st_mode & 0o044 == 0o044  # the collector is another user


def test_a_file_stays_in_its_folder_whatever_its_name(tmp_path: Path) -> None:
    assert write_metrics(tmp_path, "../a b", _registry(1)).parent == tmp_path


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CV_FACTORY_METRICS_FOLDER", raising=False)
    assert metrics_folder() is None
    monkeypatch.setenv("CV_FACTORY_METRICS_FOLDER", str(tmp_path))
    assert metrics_folder() == tmp_path
