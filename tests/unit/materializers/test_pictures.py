"""Every artifact has a picture in the dashboard: its own, or a page of its facts."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from zenml.artifact_stores import BaseArtifactStore
from zenml.enums import VisualizationType

from cv_factory.artifacts.artifact import Artifact
from cv_factory.config.serving import ServingConfig
from cv_factory.data.split import Split
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.inference.batch_predictions import BatchPredictions
from cv_factory.inference.predictor import Contract, GoldenSamples, Predictor
from cv_factory.serving.bundle import Bundle
from materializers.artifact import ArtifactMaterializer
from materializers.bundle import BundleMaterializer
from materializers.deployment import DeploymentMaterializer
from materializers.predictions import BatchPredictionsMaterializer
from materializers.split import SplitMaterializer

SPLIT = Split(np.arange(6), np.arange(6, 8), np.arange(8, 1242), seed=3, dataset_fingerprint="d")
PREDICTIONS = BatchPredictions(
    "/out", "folder <x>", "f", "pets", 2, "p" * 64, 3, 1, {"cat": 1234, "dog": 0}, ("part",)
)
BEFORE = Traffic({"old": Share(1.0)})
DEPLOYMENT = Deployment("pets", "2", "f", "id", "http://x", 1.0, BEFORE, True, "staging")
EMPTY = np.empty((0,), np.float32)
SAMPLES = GoldenSamples(np.empty((0,), np.uint8), EMPTY, EMPTY)
PREDICTOR = Predictor(b"", Contract(4, 4, 1, ("a", "b"), 2, {}, {}), SAMPLES)
BUNDLE = Bundle(PREDICTOR, ServingConfig(), "pets", "2", "2026-01-01", card_html="<p>card</p>")


class LocalFiles:
    """As much of an artifact store as pictures are written with."""

    open = staticmethod(open)


@pytest.mark.parametrize(
    ("materializer", "artifact", "texts"),
    [
        (SplitMaterializer, SPLIT, ["<h1>Split</h1>", "1,234", "validation", "seed"]),
        (BatchPredictionsMaterializer, PREDICTIONS, ["folder &lt;x&gt;", "1,234", "predicted"]),
        (DeploymentMaterializer, DEPLOYMENT, ["http://x", "not verified yet", "old"]),
        (BundleMaterializer, BUNDLE, ["pets version 2", "postprocessor"]),
    ],
)
def test_an_artifact_without_a_plot_has_a_page(
    materializer: type[ArtifactMaterializer], artifact: Artifact, texts: list[str], tmp_path: Path
) -> None:
    store = cast(BaseArtifactStore, LocalFiles())
    stored: dict[str, Any] = materializer(str(tmp_path), store).save_visualizations(artifact)
    assert stored[str(tmp_path / "summary.html")] == VisualizationType.HTML
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert not [text for text in texts if text not in page]
    if artifact is BUNDLE:
        assert (tmp_path / "model_card.html").read_text(encoding="utf-8") == "<p>card</p>"
