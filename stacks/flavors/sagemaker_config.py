"""Configuration of the flavors ``sagemaker_sized``: instances, network, key, spot and checkpoints.

Imports no SageMaker SDK, so that a stack file is checked without it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from zenml.config import ResourceSettings
from zenml.config.resource_settings import ByteUnit
from zenml.integrations.aws.flavors.sagemaker_orchestrator_flavor import (
    SagemakerOrchestratorConfig,
)
from zenml.integrations.aws.flavors.sagemaker_step_operator_flavor import (
    SagemakerStepOperatorConfig,
    SagemakerStepOperatorSettings,
)

from cv_factory.deployment.sagemaker.settings import split_list
from cv_factory.errors import StackError

#: Folder of a job that SageMaker synchronizes with one on S3.
CHECKPOINTS_IN_JOB = "/opt/ml/checkpoints"
#: Default of the SageMaker SDK's ``max_run``.
_DEFAULT_MAX_RUN_S = 24 * 3600


class Instance(BaseModel):
    """SageMaker instance type with its resources.

    Attributes:
        name: SageMaker's name, such as ``ml.m5.xlarge``.
        cpus: Virtual CPUs.
        memory_gib: Memory in GiB.
        gpus: GPUs.
        local_disk: Whether it has a local disk, which is always encrypted with AWS's own key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")
    cpus: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    gpus: int = Field(0, ge=0)
    local_disk: bool = False

    def fits(self, resources: ResourceSettings) -> bool:
        """Return whether it has all that a step requests."""
        memory = resources.get_memory(unit=ByteUnit.GIB) or 0.0
        return (
            (resources.cpu_count or 0) <= self.cpus
            and memory <= self.memory_gib
            and (resources.gpu_count or 0) <= self.gpus
        )


class SizedJobs(BaseModel):
    """Settings that both flavors add to ZenML's configuration.

    Attributes:
        instances: Instances that may be used, the cheapest first.
        subnets: Subnets of the VPC in which jobs run, with commas between them; empty for
            SageMaker's own network.
        security_groups: Security groups of the jobs, likewise; needed with subnets.
        kms_key: Key that encrypts the disks and outputs of jobs; empty for AWS's own keys.
    """

    instances: list[Instance] = Field(min_length=1)
    # Not lists: ZenML takes a string for a list to be JSON, and a variable is a string.
    subnets: str = ""
    security_groups: str = ""
    kms_key: str = ""

    @model_validator(mode="after")
    def _check_network(self) -> "SizedJobs":
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups: give both or neither")
        return self

    def select_instance(self, resources: ResourceSettings, step: str) -> Instance:
        """Return the first instance that has what a step requests.

        Raises:
            StackError: None has.
        """
        for instance in self.instances:
            if instance.fits(resources):
                return instance
        requested = resources.model_dump(
            exclude_none=True, include={"cpu_count", "gpu_count", "memory"}
        )
        listed = ", ".join(f"{key} {value}" for key, value in requested.items())
        raise StackError(
            f"Step '{step}' asks for {listed}, which none of the stack's instances has: "
            f"{', '.join(instance.name for instance in self.instances)}. Ask for less under "
            "zenml.resources in the configuration, or add an instance to the stack file."
        )

    def job_arguments(self, instance: Instance) -> dict[str, Any]:
        """Return arguments of the SageMaker SDK's Estimator for a job on an instance."""
        arguments: dict[str, Any] = {"instance_type": instance.name}
        if self.subnets:
            arguments["subnets"] = split_list(self.subnets)
            arguments["security_group_ids"] = split_list(self.security_groups)
        if self.kms_key:
            arguments["output_kms_key"] = self.kms_key
            if not instance.local_disk:
                arguments["volume_kms_key"] = self.kms_key
        return arguments


class SizedOrchestratorConfig(SizedJobs, SagemakerOrchestratorConfig):
    """Configuration of the orchestrator.

    Attributes:
        polling_interval: Seconds between two polls of a run that the client waits for.
    """

    polling_interval: float = Field(15.0, gt=0)


class SizedStepOperatorSettings(SagemakerStepOperatorSettings):
    """Settings that a step may override."""

    spot: bool = Field(
        False, description="On spot instances: cheaper, but interrupted now and then."
    )
    spot_wait: int = Field(
        14400, gt=0, description="Seconds beyond max_run that a job may wait for spot instances."
    )


class SizedStepOperatorConfig(SizedJobs, SizedStepOperatorSettings, SagemakerStepOperatorConfig):
    """Configuration of the step operator, with the defaults of its settings.

    Attributes:
        tags: Tags of the jobs, for cost allocation.
        checkpoints: ``s3://BUCKET/PREFIX`` for the checkpoints of running and failed jobs; empty
            for no checkpoints.
    """

    tags: dict[str, str] = {}
    checkpoints: str = Field("", pattern=r"^(s3://[^/]+/.+)?$")

    @model_validator(mode="after")
    def _check_defaults(self) -> "SizedStepOperatorConfig":
        if problem := self._settings_error(self):
            raise ValueError(problem)
        return self

    def check_settings(self, settings: SizedStepOperatorSettings, step: str) -> None:
        """Check the settings of a step or a run.

        Raises:
            StackError: This component cannot follow them.
        """
        if problem := self._settings_error(settings):
            raise StackError(f"The settings of step '{step}' for the step operator: {problem}.")

    def _settings_error(self, settings: SizedStepOperatorSettings) -> str | None:
        """Return why the settings cannot be followed and what to do; None if they can."""
        # Checkpoints are deleted after success, so their prefix must hold nothing else.
        if keys := [key for key in settings.estimator_args if key.startswith("checkpoint_")]:
            return (
                f"estimator_args.{keys[0]}: the stack says where checkpoints are; leave it out, "
                "and set checkpoints of the step operator in the stack file"
            )
        if settings.spot and not self.checkpoints:
            return (
                "spot: an interrupted job continues from checkpoints; say where, under checkpoints "
                "of the step operator in the stack file"
            )
        return None

    def is_checkpoint_uri(self, uri: str) -> bool:
        """Return whether a folder on S3 lies below ``checkpoints``."""
        return bool(self.checkpoints) and uri.startswith(f"{self.checkpoints.rstrip('/')}/")

    def checkpoint_arguments(self, job: str, settings: SizedStepOperatorSettings) -> dict[str, Any]:
        """Return arguments of the Estimator for a job that resumes from its checkpoints.

        Args:
            job: Identifies what the job computes; a part of the S3 key.
            settings: Settings of its step.
        """
        if not self.checkpoints:
            return {}
        arguments: dict[str, Any] = {
            "checkpoint_s3_uri": f"{self.checkpoints.rstrip('/')}/{job}",
            "checkpoint_local_path": CHECKPOINTS_IN_JOB,
        }
        if settings.spot:
            longest = settings.estimator_args.get("max_run", _DEFAULT_MAX_RUN_S)
            arguments |= {"use_spot_instances": True, "max_wait": longest + settings.spot_wait}
        return arguments
