"""Every file that docs/extending.md shows works as it stands, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("cli", "configs", "cv_factory", "materializers", "pipelines", "registry", "stacks",
            "steps", "run.py")  # fmt: skip

LIBRARY = """
import numpy as np
import torch
from cv_factory.config.data import DataConfig
from cv_factory.config.detectors import DetectorsConfig
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.model import MODEL_SECTIONS
from cv_factory.config.search import SearchConfig
from cv_factory.config.serving import PostprocessorConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.evaluation.gates import Evidence, judge
from cv_factory.evaluation.evaluate_predictor import evaluate_predictor
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.features.backbones import check_backbone, load_backbone
from cv_factory.monitoring.build_reference import build_reference
from cv_factory.monitoring.detectors import run_detectors
from cv_factory.monitoring.window import Window, build_rows
from cv_factory.serving.postprocessors import build_postprocessor
from cv_factory.training.train import train
from cv_factory.transforms.fitted import fit_transform

dataset = ingest(DataConfig(source="stripes"))
split = split_dataset(dataset, SplitConfig())
transform = fit_transform(dataset, split.train, TransformConfig(pca=PCAConfig(n_components=8)))
config = EvaluateConfig(bootstrap_samples=100, robustness_images=20, latency_runs=0)
gate = GateConfig(metric="worst_recall", min=0.9)
SearchConfig(families={"naive_bayes": {}})
for name in ("naive_bayes", "linear"):
    model = MODEL_SECTIONS[name](name=name)
    trained = train(dataset, split, transform, model, TrainConfig(epochs=3, batch_size=16))
    predictor = export_predictor(trained, transform, {}, dataset, split.validation)
    evaluation = evaluate_predictor(predictor, dataset, split.test, config)
    recall = evaluation.metrics["worst_recall"]
    assert recall.value >= 0.9, recall
    assert recall.high is None or recall.high <= 1.0, "None: the resamples do not vary"
    assert [verdict.status for verdict in judge([gate], Evidence(evaluation))] == ["passed"]
    corrupted = {result.name for result in evaluation.behavior.corruptions}
    assert "salt_and_pepper" in corrupted
check_backbone("random_squeezenet")
backbone = load_backbone("random_squeezenet", 32)
assert backbone.network(torch.zeros(2, 3, 32, 32)).flatten(1).shape == (2, 512)
PostprocessorConfig(name="uppercase")
answer = build_postprocessor("uppercase", {}, dataset.class_names)(np.float32([0.25, 0.75]))
assert (answer.label, answer.probabilities) == ("VERTICAL", {"VERTICAL": 0.75})

reference = build_reference(predictor, dataset, split, 20, 0)
test = reference.test
rows = build_rows(dataset.class_names, test.probabilities)
window = Window(rows, test.probabilities, test.features, dataset.class_names)
findings = run_detectors(reference, window, DetectorsConfig(hesitation={"min_predictions": 1}))
[finding] = [f for f in findings if f.detector == "hesitation"]
assert finding.status == "silent", finding
assert "mean_confidence" in {error.estimator for error in reference.estimator_errors}
"""
PIPELINE = """
from cli.options import RunOptions
from cli.dispatch import read_config
from cli.pipeline_config import step_names

assert step_names("ingestion") == ("split", "ingest")
options = RunOptions(pipeline="ingestion", config=None, presets=(), stack=None, data_dir=None,
    overrides=("data.source=stripes", "zenml.resources={split: {cpu_count: 1}}"),
    no_cache=False, dry_run=False, debug=False)
config, zenml = read_config(options)
assert config.data.source == "stripes"
assert zenml.resources["split"].cpu_count == 1
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    for path, source in documented_files().items():
        assert not (folder / path).exists(), path
        (folder / path).write_text(source)
    return folder


def documented_files() -> dict[str, str]:
    text = (ROOT / "docs/extending.md").read_text()
    blocks = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", text, flags=re.DOTALL)
    return dict(blocks)


def run(project: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(project),
        "ZENML_CONFIG_PATH": str(project / "zenml"),
        "ZENML_ANALYTICS_OPT_IN": "false",
    }
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_kind_is_documented_as_one_file() -> None:
    folders = [str(Path(path).parent) for path in documented_files()]
    assert sorted(set(folders)) == [
        "cv_factory/data/sources",
        "cv_factory/evaluation/corruptions",
        "cv_factory/evaluation/metrics",
        "cv_factory/features/backbones",
        "cv_factory/models",
        "cv_factory/monitoring/detectors",
        "cv_factory/monitoring/estimators",
        "cv_factory/serving/postprocessors",
        "pipelines",
    ]


@pytest.mark.slow
def test_one_file_each_adds_model_source_metric_gate_corruption_and_postprocessor(
    project: Path,
) -> None:
    run(project, "-c", LIBRARY)


@pytest.mark.slow
def test_one_file_adds_a_pipeline(project: Path) -> None:
    assert "ingestion" in run(project, "run.py", "--help")
    run(project, "-c", PIPELINE)
