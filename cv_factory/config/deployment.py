"""The configuration of a deployment: which version is served, where, and with which share."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from cv_factory.config.rollout import RolloutConfig
from cv_factory.config.section import Problem, RegisteredName, Section, refuse
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


class StickyConfig(Section):
    """What identifies a client, whose requests one version answers while the shares stay."""

    by: Literal["none", "api_key", "header", "cookie"] = Field(
        description="the value of Authorization or X-API-Key, of a header, or of a cookie; with "
        "none, each request is distributed on its own"
    )
    name: str = Field("", pattern=r"^[A-Za-z0-9_.\-]*$", description="of the header or the cookie")

    @model_validator(mode="after")
    def _check_name(self) -> "StickyConfig":
        is_named = self.by in ("header", "cookie")
        if is_named and not self.name:
            refuse([Problem(("name",), f"must name the {self.by}")])
        if self.name and not is_named:
            refuse([Problem(("name",), "is for by=header and by=cookie: remove it")])
        return self


class TlsConfig(Section):
    """Files of the endpoint's certificate, loaded again when they are renewed."""

    certificate: str | None = Field(
        None,
        min_length=1,
        description="PEM file of the certificate and its chain; null for plain HTTP",
    )
    key: str | None = Field(
        None, min_length=1, description="PEM file of its private key, without a passphrase"
    )

    @model_validator(mode="after")
    def _check_files(self) -> "TlsConfig":
        for name, other in (("certificate", "key"), ("key", "certificate")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                refuse([Problem((name,), f"must be given beside {other}")])
        return self


class EndpointConfig(Section):
    """Port of the model, a canary's or shadow's part of the requests, and how clients connect."""

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
    shadow_share: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="give the version copies of this share of the requests, whose answers go "
        "nowhere but to logs and metrics, and leave it in staging",
    )
    sticky: StickyConfig | None = Field(
        None, description="whether a client stays with a version; where not given, as at present"
    )
    tls: TlsConfig | None = Field(
        None, description="certificate of the model's proxy; where not given, the present one"
    )

    @property
    def arm(self) -> Literal["stable", "canary", "shadow"]:
        """Part of the version in a rollout."""
        if self.shadow_share is not None:
            return "shadow"
        return "stable" if self.canary_share is None else "canary"

    @property
    def share(self) -> float:
        """Fraction of the requests that the version is given, or given copies of."""
        return self.shadow_share or self.canary_share or 1.0

    @model_validator(mode="after")
    def _check_shares(self) -> "EndpointConfig":
        if self.canary_share is not None and self.shadow_share is not None:
            message = "a version is either a canary or a shadow: remove one of the two shares"
            refuse([Problem(("shadow_share",), message)])
        return self


class DeploymentPipelineConfig(Section):
    """The configuration of the deployment pipeline."""

    MODEL_NAME_KEY: ClassVar[str | None] = "model.name"

    model: DeployedModelConfig = DeployedModelConfig()
    serving: ServingConfig = ServingConfig()
    endpoint: EndpointConfig = EndpointConfig()
    rollout: RolloutConfig | None = Field(
        None,
        description="give the version the requests in steps, each on evidence, where another one "
        "is in production; null for all at once",
    )

    @model_validator(mode="after")
    def _check_rollout(self) -> "DeploymentPipelineConfig":
        if self.rollout is not None and self.endpoint.arm != "stable":
            name = f"{self.endpoint.arm}_share"
            message = "the steps of the rollout say so: remove it, or rollout"
            refuse([Problem(("endpoint", name), message)])
        return self
