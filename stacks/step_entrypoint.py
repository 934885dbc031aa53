"""Main module of a step's process that the step operator ``launcher`` starts.

Ties the process to its parent on this machine, if it has one, before anything slow is imported;
then lets ZenML run the step.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from cv_factory.cpu import limit_spinning
from cv_factory.errors import CVFactoryError, describe_system_error
from cv_factory.processes.garbage_collection import collect_rarely
from cv_factory.processes.group import PARENT_VARIABLE, terminate_group_with_parent
from cv_factory.progress import log_to_stderr

_log = logging.getLogger("stacks.step_entrypoint")

_EXIT_TERMINATED = 128 + signal.SIGTERM


class StepTerminatedError(CVFactoryError):
    """The step's process received SIGTERM."""


def main() -> int:
    """Run the step that the command line names and return the exit code."""
    collect_rarely()
    limit_spinning()
    # Slurm restarts a job that it moves: the moved process dies without a report to ZenML.
    if PARENT_VARIABLE in os.environ:
        signal.signal(signal.SIGTERM, _terminate)
        terminate_group_with_parent(int(os.environ[PARENT_VARIABLE]))
    log_to_stderr()
    _log.info("The step's process has started and loads ZenML and the step's libraries.")
    try:
        _run_step()
    except StepTerminatedError:
        return _EXIT_TERMINATED
    except Exception as error:
        # ZenML has stored it with its traceback; the process that waits raises it again.
        if isinstance(error, CVFactoryError) or describe_system_error(error):
            return 1
        raise
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    # A second signal must not interrupt the cleanup.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise StepTerminatedError("The step's process was terminated (SIGTERM).")


def _run_step() -> None:
    from zenml.entrypoints.entrypoint import main as run_entrypoint
    from zenml.utils import source_utils

    from stacks.compat.mlflow_imports import defer_packages
    from stacks.compat.zenml_active_stack import keep_active_stack
    from stacks.compat.zenml_configuration import share_configuration_files

    share_configuration_files()
    keep_active_stack()
    defer_packages()
    # Otherwise ZenML would take the folder of this file for the source root.
    source_utils.set_custom_source_root(str(Path.cwd()))
    run_entrypoint()


if __name__ == "__main__":
    sys.exit(main())
