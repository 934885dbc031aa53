"""The flavors ``sagemaker_sized``: SageMaker jobs on the cheapest instance that a step fits on.

ZenML's own orchestrator and step operator know one instance type for all steps, whatever a step
asks for. Ours choose from a list, and put every job into one network under one key. What they do is
in ``stacks.flavors.sagemaker_jobs``, which imports the SageMaker SDK.
"""

import os
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from zenml.config import ResourceSettings
from zenml.config.resource_settings import ByteUnit
from zenml.integrations.aws.flavors import (
    SagemakerOrchestratorFlavor,
    SagemakerStepOperatorFlavor,
)
from zenml.integrations.aws.flavors.sagemaker_orchestrator_flavor import (
    SagemakerOrchestratorConfig,
)
from zenml.integrations.aws.flavors.sagemaker_step_operator_flavor import (
    SagemakerStepOperatorConfig,
    SagemakerStepOperatorSettings,
)

from cv_factory.deployment.sagemaker.aws_calls import quiet_aws_logs
from cv_factory.errors import StackError

if TYPE_CHECKING:
    from stacks.flavors.sagemaker_jobs import SizedOrchestrator, SizedStepOperator

#: Folder of a job that SageMaker keeps equal to one on S3.
CHECKPOINTS_IN_JOB = "/opt/ml/checkpoints"
#: What the SageMaker SDK lets a job run that says nothing.
_SECONDS_OF_A_DAY = 24 * 3600


class Instance(BaseModel):
    """An instance type and what it has.

    Attributes:
        name: SageMaker's name, such as ``ml.m5.xlarge``.
        cpus: Virtual CPUs.
        memory_gib: Memory in GiB.
        gpus: GPUs.
        local_disk: It has a disk of its own, which is always encrypted and takes no key of ours.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")
    cpus: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    gpus: int = Field(0, ge=0)
    local_disk: bool = False

    def has(self, resources: ResourceSettings) -> bool:
        """Whether it has all that is asked for."""
        memory = resources.get_memory(unit=ByteUnit.GIB) or 0.0
        return (
            (resources.cpu_count or 0) <= self.cpus
            and memory <= self.memory_gib
            and (resources.gpu_count or 0) <= self.gpus
        )


class SizedJobs(BaseModel):
    """What both flavors add to ZenML's configuration.

    Attributes:
        instances: What may be used, the cheapest first.
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

    def instance_for(self, resources: ResourceSettings, step: str) -> Instance:
        """Return the first instance that has what a step asks for.

        Raises:
            StackError: None has.
        """
        for instance in self.instances:
            if instance.has(resources):
                return instance
        asked = resources.model_dump(
            exclude_none=True, include={"cpu_count", "gpu_count", "memory"}
        )
        wanted = ", ".join(f"{key} {value}" for key, value in asked.items())
        raise StackError(
            f"Step '{step}' asks for {wanted}, which none of the stack's instances has: "
            f"{', '.join(instance.name for instance in self.instances)}. Ask for less under "
            "zenml.resources in the configuration, or add an instance to the stack file."
        )

    def job_arguments(self, instance: Instance) -> dict[str, Any]:
        """Return arguments of the SageMaker SDK's Estimator for a job on an instance."""
        arguments: dict[str, Any] = {"instance_type": instance.name}
        if self.subnets:
            arguments["subnets"] = _listed(self.subnets)
            arguments["security_group_ids"] = _listed(self.security_groups)
        if self.kms_key:
            arguments["output_kms_key"] = self.kms_key
            if not instance.local_disk:
                arguments["volume_kms_key"] = self.kms_key
        return arguments


class SizedOrchestratorConfig(SizedJobs, SagemakerOrchestratorConfig):
    """Configuration of the orchestrator.

    Attributes:
        polling_interval: Seconds between two looks at a run that the client waits for.
    """

    polling_interval: float = Field(15.0, gt=0)


class SizedOrchestratorFlavor(SagemakerOrchestratorFlavor):
    """Registers the orchestrator."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "sagemaker_sized"

    @property
    def config_class(self) -> type[SizedOrchestratorConfig]:
        """Class of its configuration."""
        return SizedOrchestratorConfig

    @property
    def implementation_class(self) -> "type[SizedOrchestrator]":
        """Class that does the work."""
        _quiet_sdk()
        from stacks.flavors.sagemaker_jobs import SizedOrchestrator

        return SizedOrchestrator


class SizedStepOperatorSettings(SagemakerStepOperatorSettings):
    """What a step may set for itself."""

    spot: bool = Field(
        False, description="On spot instances: cheaper, but interrupted now and then."
    )
    spot_wait: int = Field(
        14400, gt=0, description="Seconds beyond max_run that a job may wait for spot instances."
    )


class SizedStepOperatorConfig(SizedJobs, SizedStepOperatorSettings, SagemakerStepOperatorConfig):
    """Configuration of the step operator: the defaults of the settings, and where jobs run.

    Attributes:
        tags: Tags of the jobs, for the bill.
        checkpoints: Where on S3 the checkpoints of jobs are kept while they run, and after those
            that failed: ``s3://BUCKET/PREFIX``. Empty for nowhere.
    """

    tags: dict[str, str] = {}
    checkpoints: str = Field("", pattern=r"^(s3://[^/]+/.+)?$")

    @model_validator(mode="after")
    def _check_defaults(self) -> "SizedStepOperatorConfig":
        if wrong := self._wrong_in(self):
            raise ValueError(wrong)
        return self

    def check_settings(self, settings: SizedStepOperatorSettings, step: str) -> None:
        """Check what a step, or a run, has set for itself.

        Raises:
            StackError: It cannot be done with this component.
        """
        if wrong := self._wrong_in(settings):
            raise StackError(f"The settings of step '{step}' for the step operator: {wrong}.")

    def _wrong_in(self, settings: SizedStepOperatorSettings) -> str | None:
        """Return what cannot be done, and what to do; None if all can."""
        # They are removed after success, so they must lie where nothing else does.
        if own := [key for key in settings.estimator_args if key.startswith("checkpoint_")]:
            return (
                f"estimator_args.{own[0]}: the stack says where checkpoints lie; leave it out, and "
                "set checkpoints of the step operator in the stack file"
            )
        if settings.spot and not self.checkpoints:
            return (
                "spot: an interrupted job continues from checkpoints; say where, under checkpoints "
                "of the step operator in the stack file"
            )
        return None

    def is_kept_here(self, uri: str) -> bool:
        """Whether a folder on S3 is one of those in which checkpoints of jobs are kept."""
        return bool(self.checkpoints) and uri.startswith(f"{self.checkpoints.rstrip('/')}/")

    def checkpoint_arguments(self, job: str, settings: SizedStepOperatorSettings) -> dict[str, Any]:
        """Return arguments of the Estimator for a job that is continued where it was.

        Args:
            job: Tells it from others that do something else, as part of an S3 key.
            settings: Those of its step.
        """
        if not self.checkpoints:
            return {}
        arguments: dict[str, Any] = {
            "checkpoint_s3_uri": f"{self.checkpoints.rstrip('/')}/{job}",
            "checkpoint_local_path": CHECKPOINTS_IN_JOB,
        }
        if settings.spot:
            longest = settings.estimator_args.get("max_run", _SECONDS_OF_A_DAY)
            arguments |= {"use_spot_instances": True, "max_wait": longest + settings.spot_wait}
        return arguments


class SizedStepOperatorFlavor(SagemakerStepOperatorFlavor):
    """Registers the step operator."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "sagemaker_sized"

    @property
    def config_class(self) -> type[SizedStepOperatorConfig]:
        """Class of its configuration."""
        return SizedStepOperatorConfig

    @property
    def implementation_class(self) -> "type[SizedStepOperator]":
        """Class that does the work."""
        _quiet_sdk()
        from stacks.flavors.sagemaker_jobs import SizedStepOperator

        return SizedStepOperator


def _quiet_sdk() -> None:
    """Keep the SDK from telling of a newer one at its import: ZenML 0.98 cannot use that."""
    os.environ.setdefault("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
    quiet_aws_logs()


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
