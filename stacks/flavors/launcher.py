"""Step operator flavor ``launcher``: each step in a process of its own, here or in a Slurm job.

Its memory is freed when it ends; a crash in native code or an out-of-memory kill fails the step and
not the client. On this machine no process outlives the client. The launcher starts one process a
node; a step that trains starts its ranks itself (``cv_factory.training.distributed``).
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast
from uuid import UUID

from pydantic import Field, model_validator
from zenml.client import Client
from zenml.config.base_settings import BaseSettings
from zenml.config.global_config import GlobalConfiguration
from zenml.config.resource_settings import ByteUnit
from zenml.enums import ExecutionStatus
from zenml.orchestrators.publish_utils import publish_step_run_metadata, step_exception_info
from zenml.step_operators import (
    BaseStepOperator,
    BaseStepOperatorConfig,
    BaseStepOperatorFlavor,
)
from zenml.step_operators.step_operator_entrypoint_configuration import (
    StepOperatorEntrypointConfiguration,
)
from zenml.utils import exception_utils, source_utils

from cv_factory.errors import CVFactoryError
from cv_factory.processes.group import GroupProcess, Job, Limits
from cv_factory.training.checkpoint import DIRECTORY_VARIABLE
from stacks.compat.zenml_integrations import activate_only_stack_integrations
from stacks.flavors.gpus import visible_gpus
from stacks.flavors.slurm import JobRequest, SlurmJob

if TYPE_CHECKING:
    from zenml.config.step_run_info import StepRunInfo
    from zenml.models import StepRunResponse


#: Exceptions that end a process: ZenML would raise them again in the client.
_EXIT_EXCEPTIONS = ("builtins.SystemExit", "builtins.KeyboardInterrupt", "builtins.GeneratorExit")

#: Metadata key of a step run's Slurm job.
_JOB_KEY = "slurm_job"


class StepProcessError(CVFactoryError):
    """A step's own process ended without finishing the step or reporting why."""


class LauncherSettings(BaseSettings):
    """Settings that a step may override; CPUs, GPUs and memory are its ``ResourceSettings``."""

    grace_period: float = Field(
        10.0, ge=0.0, description="Seconds from SIGTERM to SIGKILL when a step is stopped."
    )
    timeout: float | None = Field(
        None, gt=0.0, description="Seconds after which the step is killed; Slurm counts minutes."
    )
    nodes: int = Field(1, ge=1, description="Machines that train together; slurm only.")
    sbatch_options: list[str] = Field(
        [], description="More options of sbatch, such as --partition=gpu; slurm only."
    )


class LauncherConfig(BaseStepOperatorConfig, LauncherSettings):
    """Configuration of the component, with the defaults of its settings."""

    launcher: Literal["process", "slurm"] = Field(
        "process", description="process: on the client's machine. slurm: as a job of the cluster."
    )
    shared_directory: str | None = Field(
        None,
        description="Keeps checkpoints and, for slurm, job scripts and logs: seen by all nodes.",
    )

    @model_validator(mode="after")
    def _check_launcher(self) -> "LauncherConfig":
        if self.launcher == "slurm" and not self.shared_directory:
            raise ValueError("launcher: slurm needs a shared_directory that all nodes see")
        if self.launcher == "process" and self.nodes > 1:
            raise ValueError("nodes: launcher 'process' has only this machine")
        return self

    @property
    def is_local(self) -> bool:
        """Whether steps run on the client's machine."""
        return self.launcher == "process"


class LauncherFlavor(BaseStepOperatorFlavor):
    """Flavor ``launcher``."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "launcher"

    @property
    def config_class(self) -> type[LauncherConfig]:
        """Configuration class."""
        return LauncherConfig

    @property
    def implementation_class(self) -> "type[Launcher]":
        """Implementation class."""
        return Launcher


class LauncherEntrypoint(StepOperatorEntrypointConfiguration):
    """Entry point of the step's process."""

    @classmethod
    def get_entrypoint_command(cls) -> list[str]:
        """Return the command with our main module in place of ZenML's."""
        return ["python", "-m", "stacks.step_entrypoint"]

    def prepare_code_environment(self) -> None:
        """Keep the working directory: ZenML would change to ``/app``."""

    def run(self) -> None:
        """Run the step with only the integrations of its stack."""
        activate_only_stack_integrations()
        super().run()


class Launcher(BaseStepOperator):
    """Step operator that starts, awaits and stops processes and Slurm jobs."""

    # Class variable: ZenML may create several instances of a component.
    _jobs: ClassVar[dict[UUID, Job]] = {}

    @property
    def config(self) -> LauncherConfig:
        """Configuration of the component."""
        return cast(LauncherConfig, self._config)

    @property
    def settings_class(self) -> type[LauncherSettings]:
        """Class of the settings that a step may override."""
        return LauncherSettings

    @property
    def entrypoint_config_class(self) -> type[LauncherEntrypoint]:
        """Entry point of the step's process."""
        return LauncherEntrypoint

    def submit(
        self, info: "StepRunInfo", entrypoint_command: list[str], environment: dict[str, str]
    ) -> None:
        """Start the step's process, or submit its job.

        Args:
            info: The step run.
            entrypoint_command: The command, whose first word is replaced by this interpreter.
            environment: Variables to add to those of this process.

        Raises:
            StackError: The machine has fewer GPUs than the step asks for, or Slurm refuses the job.
        """
        root = source_utils.get_source_root()
        paths = [root, os.environ.get("PYTHONPATH", "")]
        variables = {
            **environment,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
            DIRECTORY_VARIABLE: self._checkpoint_directory(environment),
        }
        command = [sys.executable, *entrypoint_command[1:]]
        if self.config.launcher == "slurm":
            self._jobs[info.step_run_id] = self._submit_to_slurm(
                info, command, variables, Path(root)
            )
        else:
            self._jobs[info.step_run_id] = self._start_process(info, command, variables, Path(root))

    def wait(self, step_run: "StepRunResponse") -> ExecutionStatus:
        """Block until the step's process or job has ended, however it ends.

        Raises:
            StepProcessError: It ended without finishing the step or reporting an exception.
        """
        job = self._find_job(step_run)
        try:
            code = job.wait()
        finally:  # also after an interrupt, and for processes that the step left running
            self.cancel(step_run)
        return self._outcome(step_run, code)

    def get_status(self, step_run: "StepRunResponse") -> ExecutionStatus:
        """Return the state of the step without blocking.

        Raises:
            StepProcessError: It ended without finishing the step or reporting an exception.
        """
        code = self._find_job(step_run).poll()
        return ExecutionStatus.RUNNING if code is None else self._outcome(step_run, code)

    def cancel(self, step_run: "StepRunResponse") -> None:
        """Stop the step's process group, or its job."""
        settings = cast(LauncherSettings, self.get_settings(step_run))
        self._find_job(step_run).stop(settings.grace_period)

    def cleanup_step_submission(self, step_run: "StepRunResponse") -> None:
        """Remove the files of a finished step, but the log of one that failed in Slurm."""
        job = self._jobs.pop(step_run.id, None)
        if isinstance(job, SlurmJob):
            succeeded = Client().get_run_step(step_run.id).status.is_successful
            job.remove_files(keep_log=not succeeded)

    def _start_process(
        self, info: "StepRunInfo", command: list[str], environment: dict[str, str], root: Path
    ) -> GroupProcess:
        """Start the step on this machine, with this process's standard output."""
        settings = cast(LauncherSettings, self.get_settings(info))
        resources = info.config.resource_settings
        variables = {**os.environ, **environment}
        if resources.gpu_count is not None:
            name = info.pipeline_step_name
            variables |= visible_gpus(name, resources.gpu_count, variables)
        megabytes = resources.get_memory(ByteUnit.MB)
        limits = Limits(megabytes and megabytes * 1e6, settings.timeout)
        return GroupProcess(command, variables, root, limits)

    def _submit_to_slurm(
        self, info: "StepRunInfo", command: list[str], environment: dict[str, str], root: Path
    ) -> SlurmJob:
        """Submit the step, and store the number of its job for other processes."""
        settings = cast(LauncherSettings, self.get_settings(info))
        resources = info.config.resource_settings
        request = JobRequest(
            name=info.pipeline_step_name,
            nodes=settings.nodes,
            cpus=resources.cpu_count,
            gpus=resources.gpu_count,
            memory=resources.get_memory(ByteUnit.MIB),
            seconds=settings.timeout,
            options=tuple(settings.sbatch_options),
        )
        node_agent = [sys.executable, "-m", "cv_factory.training.distributed.node_agent"]
        directory = self._job_directory(info.step_run_id)
        job = SlurmJob.submit(command, node_agent, environment, root, directory, request)
        publish_step_run_metadata(info.step_run_id, {self.id: {_JOB_KEY: job.number}})
        return job

    def _checkpoint_directory(self, environment: Mapping[str, str]) -> str:
        """Return the folder of checkpoints: the environment's, or else the component's default."""
        configured = environment.get(DIRECTORY_VARIABLE) or os.environ.get(DIRECTORY_VARIABLE)
        shared = self.config.shared_directory or GlobalConfiguration().local_stores_path
        return configured or str(Path(shared) / "checkpoints")

    def _job_directory(self, step_run_id: UUID) -> Path:
        assert self.config.shared_directory is not None  # checked with the configuration
        return Path(self.config.shared_directory) / "jobs" / str(step_run_id)

    def _find_job(self, step_run: "StepRunResponse") -> Job:
        if step_run.id not in self._jobs:
            number = Client().get_run_step(step_run.id).run_metadata.get(_JOB_KEY)
            if number is None:
                raise StepProcessError(
                    f"Step '{step_run.name}' was started by another process than this one; "
                    "stop it there."
                )
            directory = self._job_directory(step_run.id)
            self._jobs[step_run.id] = SlurmJob(int(cast(int, number)), directory)
        return self._jobs[step_run.id]

    def _outcome(self, step_run: "StepRunResponse", code: int) -> ExecutionStatus:
        """Return the status of an ended step, from its exit code and what it reported to ZenML."""
        reported = Client().get_run_step(step_run.id)
        if reported.status.is_successful:
            return ExecutionStatus.COMPLETED
        info = reported.exception_info
        if info is not None and info.source not in _EXIT_EXCEPTIONS:
            return ExecutionStatus.FAILED  # ZenML raises the reported exception
        job = self._find_job(step_run)
        log = f" Its log is {job.log}." if isinstance(job, SlurmJob) else ""
        error = StepProcessError(
            f"The process of step '{step_run.name}' {job.describe(code)} "
            f"without finishing the step or reporting an exception. See its output above.{log}"
        )
        step_exception_info.set(exception_utils.collect_exception_information(error))
        raise error
