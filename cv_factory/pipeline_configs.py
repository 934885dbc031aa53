"""Every pipeline that ``run.py --pipeline`` knows, with the schema of its configuration.

Apart from the schemas themselves, so that training does not depend on how its models are served.
"""

from cv_factory.config import Section, TrainingPipelineConfig, ValidationPipelineConfig
from cv_factory.config_batch import BatchInferencePipelineConfig
from cv_factory.config_deployment import DeploymentPipelineConfig

PIPELINE_CONFIGS: dict[str, type[Section]] = {
    "training": TrainingPipelineConfig,
    "validation": ValidationPipelineConfig,
    "deployment": DeploymentPipelineConfig,
    "batch_inference": BatchInferencePipelineConfig,
}
