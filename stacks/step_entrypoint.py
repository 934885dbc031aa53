"""The main module of a step's own process, as the step operator ``launcher`` starts it.

Ties the process to the one on this machine that started it, if there is one, before anything slow
is imported; then lets ZenML run the step.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from cv_factory.errors import CVFactoryError
from cv_factory.processes.group import PARENT_VARIABLE, terminate_group_with_parent

_EXIT_TERMINATED = 128 + signal.SIGTERM


class StepTerminatedError(CVFactoryError):
    """The step's process was told to end."""


def main() -> int:
    """Run the step that the command line names and return the exit code."""
    # Slurm starts a job again that it has to move: that one just dies, and tells ZenML nothing.
    if PARENT_VARIABLE in os.environ:
        signal.signal(signal.SIGTERM, _terminate)
        terminate_group_with_parent(int(os.environ[PARENT_VARIABLE]))
    try:
        _run_step()
    except StepTerminatedError:
        return _EXIT_TERMINATED
    except CVFactoryError:
        # ZenML has stored it with its traceback; the process that waits raises it again.
        return 1
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    # Once is enough: what is cleaned up must not be interrupted again.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise StepTerminatedError("The step's process was told to end (SIGTERM).")


def _run_step() -> None:
    from zenml.entrypoints.entrypoint import main as run_entrypoint
    from zenml.utils import source_utils

    # The launcher starts this process there; else ZenML would take this file's folder for it.
    source_utils.set_custom_source_root(str(Path.cwd()))
    run_entrypoint()


if __name__ == "__main__":
    sys.exit(main())
