"""What ZenML stores of 28 November 2026 (commit b07a111) name can still be imported."""

import importlib
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

#: Module and class of each artifact type, by its materializer.
_ARTIFACTS = {
    "bundle.BundleMaterializer": "serving.bundle.Bundle",
    "dataset.ImageDatasetMaterializer": "data.dataset.ImageDataset",
    "deployment.DeploymentMaterializer": "deployment.deployment.Deployment",
    "evaluation.EvaluationMaterializer": "evaluation.evaluation.Evaluation",
    "model.TrainedModelMaterializer": "training.trained_model.TrainedModel",
    "predictions.BatchPredictionsMaterializer": "inference.predictions.BatchPredictions",
    "predictor.PredictorMaterializer": "inference.predictor.Predictor",
    "registration.RegistrationMaterializer": "evaluation.registration.Registration",
    "report.DataReportMaterializer": "data.report.DataReport",
    "search.SearchResultMaterializer": "training.search.result.SearchResult",
    "split.SplitMaterializer": "data.split.Split",
    "transform.FittedTransformMaterializer": "transforms.fitted.FittedTransform",
}
_LOAD_ALL = """
import sys
from zenml.utils import source_utils
source_utils.set_custom_source_root(sys.argv[1])
for source in sys.argv[2:]:
    source_utils.load(source)
"""


@pytest.mark.slow
def test_every_artifact_type_is_found_after_its_materializer() -> None:
    # In a process of its own, where nothing else has imported them; in ZenML's order.
    sources = [
        source
        for materializer, kind in _ARTIFACTS.items()
        for source in (f"materializers.{materializer}", f"cv_factory.{kind}")
    ]
    command = [sys.executable, "-c", _LOAD_ALL, str(ROOT), *sources]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert not result.returncode, result.stderr


@pytest.mark.parametrize(
    "source",
    [
        "stacks.flavors.bento.BentoDeployerFlavor",
        "stacks.flavors.bento.BentoService",
        "stacks.flavors.bento.BentoServiceConfig",
        "stacks.flavors.codebuild.CodeBuildFlavor",
        "stacks.flavors.gx.GXDataValidatorFlavor",
        "stacks.flavors.launcher.LauncherFlavor",
        "stacks.flavors.sagemaker.SizedOrchestratorFlavor",
        "stacks.flavors.sagemaker.SizedStepOperatorFlavor",
        "stacks.flavors.sagemaker_bento.SagemakerBentoFlavor",
        "stacks.flavors.sagemaker_bento.SagemakerService",
        "stacks.flavors.sagemaker_bento.SagemakerServiceConfig",
    ],
)
def test_flavors_and_services_are_found(source: str) -> None:
    module, _, name = source.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)
