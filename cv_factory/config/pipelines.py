"""Every pipeline that ``run.py --pipeline`` knows, with the schema of its configuration.

Apart from the schemas themselves, so that training does not depend on how its models are served.
"""

from cv_factory.config.batch_inference import BatchInferencePipelineConfig
from cv_factory.config.deployment import DeploymentPipelineConfig
from cv_factory.config.monitoring import MonitoringPipelineConfig
from cv_factory.config.section import Section
from cv_factory.config.training import TrainingPipelineConfig, ValidationPipelineConfig

PIPELINE_CONFIGS: dict[str, type[Section]] = {
    "training": TrainingPipelineConfig,
    "validation": ValidationPipelineConfig,
    "deployment": DeploymentPipelineConfig,
    "batch_inference": BatchInferencePipelineConfig,
    "monitoring": MonitoringPipelineConfig,
}
