"""The configuration of a deployment: which version is served, where, and with which share."""

from typing import ClassVar

from pydantic import Field

from cv_factory.config.section import RegisteredName, Section
from cv_factory.config.serving import ServingConfig


class DeployedModelConfig(Section):
    """Version to deploy."""

    name: RegisteredName | None = Field(
        None, description="registered name; the only registered model where not given"
    )
    version: int | None = Field(
        None,
        ge=1,
        description="a version in staging or production; where not given, the one in staging, or "
        "where there is none, the one in production",
    )


class EndpointConfig(Section):
    """Port of the model, and a canary's part of the requests."""

    port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="of the model's proxy; where not given, the present one, or for a new one the "
        "first from the model deployer's on that no other model has and nothing listens on",
    )
    canary_share: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="give the version this share of the requests, beside the one in production, "
        "and leave it in staging; deploy without it to promote it",
    )


class DeploymentPipelineConfig(Section):
    """The configuration of the deployment pipeline."""

    MODEL_NAME_KEY: ClassVar[str | None] = "model.name"

    model: DeployedModelConfig = DeployedModelConfig()
    serving: ServingConfig = ServingConfig()
    endpoint: EndpointConfig = EndpointConfig()
