"""ZenML materializers, one an artifact: plain files only, never a pickle.

Importing this package registers all of them with ZenML.
"""

from materializers.bundle import BundleMaterializer
from materializers.collected_predictions import CollectedPredictionsMaterializer
from materializers.data_issues import DataIssuesMaterializer
from materializers.dataset import ImageDatasetMaterializer
from materializers.deployment import DeploymentMaterializer
from materializers.evaluation import EvaluationMaterializer
from materializers.features import BackboneMaterializer, ImageFeaturesMaterializer
from materializers.model import TrainedModelMaterializer
from materializers.monitoring_report import MonitoringReportMaterializer
from materializers.predictions import BatchPredictionsMaterializer
from materializers.predictor import PredictorMaterializer
from materializers.reference import ReferenceMaterializer
from materializers.registration import RegistrationMaterializer
from materializers.report import DataReportMaterializer
from materializers.search import SearchResultMaterializer
from materializers.split import SplitMaterializer
from materializers.transform import FittedTransformMaterializer

__all__ = [
    "BackboneMaterializer",
    "BatchPredictionsMaterializer",
    "BundleMaterializer",
    "CollectedPredictionsMaterializer",
    "DataIssuesMaterializer",
    "DataReportMaterializer",
    "DeploymentMaterializer",
    "EvaluationMaterializer",
    "FittedTransformMaterializer",
    "ImageDatasetMaterializer",
    "ImageFeaturesMaterializer",
    "MonitoringReportMaterializer",
    "PredictorMaterializer",
    "ReferenceMaterializer",
    "RegistrationMaterializer",
    "SearchResultMaterializer",
    "SplitMaterializer",
    "TrainedModelMaterializer",
]
