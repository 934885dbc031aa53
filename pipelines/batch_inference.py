"""Pipeline ``batch_inference``: score images with a registered version into Parquet."""

from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from cv_factory.config.batch_inference import BatchInferencePipelineConfig
from steps.predict_batch import predict_batch


@pipeline(name="batch_inference")
def batch_inference(
    config: BatchInferencePipelineConfig,
    predictor_id: str,
    model_name: str,
    model_version: int,
) -> None:
    """Score the configured images with the stored predictor of one version."""
    predictor = Client().get_artifact_version(UUID(predictor_id))
    predict_batch(
        predictor,
        config.data,
        config.output,
        model_name=model_name,
        model_version=model_version,
    )
