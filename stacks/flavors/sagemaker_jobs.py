"""Orchestrator and step operator that run steps as SageMaker jobs.

They add to ZenML's: selection of the instance, checkpoints of training jobs on S3, a wait without
time limit, and errors that name the failed step and its exception.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import BotoCoreError, ClientError
from zenml.client import Client
from zenml.config.step_configurations import StepConfiguration
from zenml.constants import METADATA_ORCHESTRATOR_RUN_ID
from zenml.enums import ExecutionStatus
from zenml.integrations.aws.flavors.sagemaker_orchestrator_flavor import (
    SagemakerOrchestratorSettings,
)
from zenml.integrations.aws.orchestrators import SagemakerOrchestrator
from zenml.integrations.aws.step_operators.sagemaker_step_operator import (
    STEP_JOB_NAME_METADATA_KEY,
)
from zenml.orchestrators import SubmissionResult
from zenml.orchestrators.publish_utils import step_exception_info
from zenml.utils import exception_utils, settings_utils

from cv_factory.deployment.sagemaker.aws_errors import aws_error
from cv_factory.errors import CVFactoryError
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE
from stacks.compat.zenml_sagemaker import StepOperatorWithSession, wait_for_execution
from stacks.flavors.sagemaker_config import (
    CHECKPOINTS_IN_JOB,
    SizedOrchestratorConfig,
    SizedStepOperatorConfig,
    SizedStepOperatorSettings,
)

if TYPE_CHECKING:
    from zenml.config.base_settings import BaseSettings
    from zenml.config.step_configurations import Step
    from zenml.config.step_run_info import StepRunInfo
    from zenml.models import PipelineRunResponse, PipelineSnapshotResponse, StepRunResponse
    from zenml.stack import Stack


class RemoteRunError(CVFactoryError):
    """A run on SageMaker failed; names its failed steps."""


class StepJobError(CVFactoryError):
    """The job of a step ended without finishing the step or reporting why."""


class SizedOrchestrator(SagemakerOrchestrator):
    """Runs every step of a pipeline as a SageMaker job of its own."""

    @property
    def config(self) -> SizedOrchestratorConfig:
        """Configuration of the component."""
        return cast(SizedOrchestratorConfig, self._config)

    def get_settings(self, container: Any) -> "BaseSettings":
        """Return the settings of a step, with the instance that it fits on.

        Raises:
            StackError: No instance has what the step asks for.
        """
        settings = cast(SagemakerOrchestratorSettings, super().get_settings(container))
        config = getattr(container, "config", None)
        if not isinstance(config, StepConfiguration):  # those of a run
            return settings
        resources = config.resource_settings
        if config.step_operator:  # its job only waits for the step operator's
            resources = type(resources)()
        instance = self.config.select_instance(resources, config.name)
        arguments = {**self.config.job_arguments(instance), **settings.estimator_args}
        return settings.model_copy(update={"estimator_args": arguments})

    def submit_pipeline(
        self,
        snapshot: "PipelineSnapshotResponse",
        stack: "Stack",
        base_environment: dict[str, str],
        step_environments: dict[str, dict[str, str]],
        placeholder_run: "PipelineRunResponse | None" = None,
    ) -> SubmissionResult | None:
        """Submit a run; see ZenML.

        Raises:
            StackError: No instance has what a step asks for, or its settings cannot be followed.
            AwsError: AWS refuses it.
        """
        operator = stack.step_operator
        if isinstance(operator, SizedStepOperator):
            for name, step in snapshot.step_configurations.items():
                if step.config.uses_step_operator(operator.name):
                    operator.config.select_instance(step.config.resource_settings, name)
                    operator.config.check_settings(operator.step_settings(step), name)
        try:
            result = super().submit_pipeline(
                snapshot, stack, base_environment, step_environments, placeholder_run
            )
        except (ClientError, BotoCoreError) as error:
            raise aws_error(error, "SageMaker does not take the run") from error
        if result is None or result.wait_for_completion is None:
            return result
        arn = str((result.metadata or {})[METADATA_ORCHESTRATOR_RUN_ID])
        return SubmissionResult(
            wait_for_completion=partial(self._wait, arn), metadata=result.metadata
        )

    def _wait(self, arn: str) -> None:
        """Block until a run has ended, however long it takes.

        Raises:
            RemoteRunError: It did not succeed.
        """
        client = self.sagemaker_session.sagemaker_client
        status = wait_for_execution(client, arn, self.config.polling_interval)
        if status == "Succeeded":
            return
        steps = client.list_pipeline_execution_steps(PipelineExecutionArn=arn)
        failed = [s for s in steps["PipelineExecutionSteps"] if s["StepStatus"] == "Failed"]
        reasons = [f"Step '{s['StepName']}': {_failure_reason(arn, s)}" for s in failed]
        raise RemoteRunError("\n".join([f"The run on SageMaker ended as {status}.", *reasons]))


def _failure_reason(arn: str, step: dict[str, Any]) -> str:
    """Return the exception that ended a step, or else SageMaker's reason."""
    runs = Client().list_pipeline_runs(orchestrator_run_id=arn, hydrate=True).items
    run_step = runs[0].steps.get(step["StepName"]) if runs else None
    info = run_step.exception_info if run_step else None
    if info is None:
        return str(step.get("FailureReason") or "no reason was given")
    return f"{(info.source or 'an exception').rpartition('.')[2]}: {info.message}"


class SizedStepOperator(StepOperatorWithSession):
    """Runs single steps as SageMaker training jobs."""

    @property
    def config(self) -> SizedStepOperatorConfig:
        """Configuration of the component."""
        return cast(SizedStepOperatorConfig, self._config)

    @property
    def settings_class(self) -> type[SizedStepOperatorSettings]:
        """Class of the settings that a step may override."""
        return SizedStepOperatorSettings

    def step_settings(self, step: "Step | StepRunInfo") -> SizedStepOperatorSettings:
        """Return the settings of a step, merged from its own, its run's and the component's."""
        return cast(SizedStepOperatorSettings, self.get_settings(step))

    def submit(
        self, info: "StepRunInfo", entrypoint_command: list[str], environment: dict[str, str]
    ) -> None:
        """Submit a step's job; see ZenML.

        Raises:
            StackError: No instance has what the step asks for, or its settings cannot be followed.
            AwsError: AWS refuses it.
        """
        if self.config.checkpoints:
            environment = {**environment, DIRECTORY_VARIABLE: CHECKPOINTS_IN_JOB}
        try:
            super().submit(self._sized(info), entrypoint_command, environment)
        except (ClientError, BotoCoreError) as error:
            raise aws_error(error, f"SageMaker does not take step '{info.config.name}'") from error

    def wait(self, step_run: "StepRunResponse") -> ExecutionStatus:
        """Block until the step's job has ended, however it ends.

        Raises:
            StepJobError: It ended without finishing the step or reporting an exception.
        """
        status = super().wait(step_run)
        reported = Client().get_run_step(step_run.id)
        if status.is_successful or reported.status.is_successful or reported.exception_info:
            return status
        job = self._describe_job(step_run)
        if job["SecondaryStatus"] == "Stopped":  # by somebody
            return status
        error = StepJobError(
            f"The job {job['TrainingJobName']} of step '{step_run.name}' ended as "
            f"{job['SecondaryStatus']}: {job.get('FailureReason') or 'no reason was given'}. "
            "Its log is in CloudWatch under /aws/sagemaker/TrainingJobs. "
            "Run the same command again, and it continues from its last checkpoint, if it kept any."
        )
        step_exception_info.set(exception_utils.collect_exception_information(error))
        raise error

    def cleanup_step_submission(self, step_run: "StepRunResponse") -> None:
        """Delete the checkpoints of a step that succeeded: SageMaker never does."""
        if not Client().get_run_step(step_run.id).status.is_successful:
            return
        checkpoints = self._describe_job(step_run).get("CheckpointConfig")
        if checkpoints and self.config.is_checkpoint_uri(checkpoints["S3Uri"]):
            bucket, _, prefix = checkpoints["S3Uri"].removeprefix("s3://").partition("/")
            resource = self.sagemaker_session.boto_session.resource("s3")
            resource.Bucket(bucket).objects.filter(Prefix=f"{prefix}/").delete()

    def _describe_job(self, step_run: "StepRunResponse") -> dict[str, Any]:
        name = step_run.run_metadata[STEP_JOB_NAME_METADATA_KEY]
        client = self.sagemaker_session.sagemaker_client
        job: dict[str, Any] = client.describe_training_job(TrainingJobName=name)
        return job

    def _sized(self, info: "StepRunInfo") -> "StepRunInfo":
        """Return the step run with its resources, which ZenML ignores, as Estimator arguments."""
        instance = self.config.select_instance(info.config.resource_settings, info.config.name)
        settings = self.step_settings(info)
        self.config.check_settings(settings, info.config.name)
        # ZenML's cache key identifies the same step on the same inputs in any run.
        job = f"{info.config.name}/{info.step_run.cache_key}"
        arguments = {
            **self.config.job_arguments(instance),
            **self.config.checkpoint_arguments(job, settings),
            **settings.estimator_args,
        }
        if self.config.tags:
            tags = [{"Key": key, "Value": value} for key, value in self.config.tags.items()]
            arguments.setdefault("tags", tags)
        key = settings_utils.get_stack_component_name_setting_key(self)
        sized = settings.model_copy(update={"estimator_args": arguments})
        others = {k: v for k, v in info.config.settings.items() if k not in ("resources", key)}
        config = info.config.model_copy(update={"settings": {**others, key: sized}})
        return info.model_copy(update={"config": config})
