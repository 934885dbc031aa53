"""The step operator flavor ``launcher``: a step runs in a process of its own on this machine.

Its memory is freed when it ends, a crash in native code or an out-of-memory kill fails the step and
leaves the client alive, and no process outlives the client.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast
from uuid import UUID

from pydantic import Field
from zenml.client import Client
from zenml.config.base_settings import BaseSettings
from zenml.enums import ExecutionStatus
from zenml.orchestrators.publish_utils import step_exception_info
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
from stacks.flavors.process import GroupProcess, describe_exit
from stacks.startup import activate_only_stack_integrations

if TYPE_CHECKING:
    from zenml.config.step_run_info import StepRunInfo
    from zenml.models import StepRunResponse


#: Exceptions that end a process: raised again in the client they would end that one, too.
_EXITS = ("builtins.SystemExit", "builtins.KeyboardInterrupt", "builtins.GeneratorExit")


class StepProcessError(CVFactoryError):
    """A step's own process ended without finishing the step or reporting why."""


class LauncherSettings(BaseSettings):
    """What a step may set for itself."""

    grace_period: float = Field(
        10.0, ge=0.0, description="Seconds from SIGTERM to SIGKILL when a step is stopped."
    )


class LauncherConfig(BaseStepOperatorConfig, LauncherSettings):
    """Configuration of the component: the defaults of the settings."""

    @property
    def is_local(self) -> bool:
        """The processes run on the client's machine."""
        return True


class LauncherFlavor(BaseStepOperatorFlavor):
    """Registers the flavor."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "launcher"

    @property
    def config_class(self) -> type[LauncherConfig]:
        """Class of its configuration."""
        return LauncherConfig

    @property
    def implementation_class(self) -> "type[Launcher]":
        """Class that does the work."""
        return Launcher


class LauncherEntrypoint(StepOperatorEntrypointConfiguration):
    """What runs in the step's process."""

    @classmethod
    def get_entrypoint_command(cls) -> list[str]:
        """Name our main module instead of ZenML's."""
        return ["python", "-m", "stacks.step_entrypoint"]

    def prepare_code_environment(self) -> None:
        """Do nothing: the process starts in the source root, and ZenML would change to ``/app``."""

    def run(self) -> None:
        """Run the step with the integrations of its stack alone."""
        activate_only_stack_integrations()
        super().run()


class Launcher(BaseStepOperator):
    """Starts, awaits and stops the processes of steps."""

    # By step run; ZenML may make more than one instance of a component.
    _processes: ClassVar[dict[UUID, GroupProcess]] = {}

    @property
    def config(self) -> LauncherConfig:
        """Configuration of the component."""
        return cast(LauncherConfig, self._config)

    @property
    def settings_class(self) -> type[LauncherSettings]:
        """Class of what a step may set."""
        return LauncherSettings

    @property
    def entrypoint_config_class(self) -> type[LauncherEntrypoint]:
        """What runs in the step's process."""
        return LauncherEntrypoint

    def submit(
        self, info: "StepRunInfo", entrypoint_command: list[str], environment: dict[str, str]
    ) -> None:
        """Start the step's process; its output goes where this process's output goes.

        Args:
            info: The step run.
            entrypoint_command: The command, whose first word is replaced by this interpreter.
            environment: Variables to add to those of this process.
        """
        root = source_utils.get_source_root()
        paths = [root, os.environ.get("PYTHONPATH", "")]
        variables = {
            **os.environ,
            **environment,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, *entrypoint_command[1:]]
        self._processes[info.step_run_id] = GroupProcess(command, variables, Path(root))

    def wait(self, step_run: "StepRunResponse") -> ExecutionStatus:
        """Block until the step's process has ended, however it ends.

        Raises:
            StepProcessError: It ended without finishing the step or reporting an exception.
        """
        process = self._process_of(step_run)
        try:
            code = process.wait()
        finally:  # an interrupt of this process, or what the step left running
            self.cancel(step_run)
        return self._outcome(step_run, code)

    def get_status(self, step_run: "StepRunResponse") -> ExecutionStatus:
        """Return the state of the step without blocking.

        Raises:
            StepProcessError: Its process ended without finishing it or reporting an exception.
        """
        code = self._process_of(step_run).poll()
        return ExecutionStatus.RUNNING if code is None else self._outcome(step_run, code)

    def cancel(self, step_run: "StepRunResponse") -> None:
        """End the step's process and all that it started."""
        settings = cast(LauncherSettings, self.get_settings(step_run))
        self._process_of(step_run).stop(settings.grace_period)

    def cleanup_step_submission(self, step_run: "StepRunResponse") -> None:
        """Forget the process of a finished step."""
        self._processes.pop(step_run.id, None)

    def _process_of(self, step_run: "StepRunResponse") -> GroupProcess:
        if step_run.id not in self._processes:
            raise StepProcessError(
                f"Step '{step_run.name}' was started by another process than this one; "
                "stop it there."
            )
        return self._processes[step_run.id]

    def _outcome(self, step_run: "StepRunResponse", code: int) -> ExecutionStatus:
        """Compare how the process ended with what it reported."""
        reported = Client().get_run_step(step_run.id)
        if reported.status.is_successful:
            return ExecutionStatus.COMPLETED
        info = reported.exception_info
        if info is not None and info.source not in _EXITS:
            return ExecutionStatus.FAILED  # ZenML raises the reported exception
        error = StepProcessError(
            f"The process of step '{step_run.name}' {describe_exit(code)} "
            "without finishing the step or reporting an exception. Its output stands above."
        )
        step_exception_info.set(exception_utils.collect_exception_information(error))
        raise error
