"""Runs a pipeline whose second step is launched in its own process and ends in a given way.

Copied into a clean client's source root by ``test_launcher``.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from typing import Annotated, Any

from zenml import pipeline, step
from zenml.client import Client
from zenml.enums import ExecutionMode

from cv_factory.errors import TrainingError
from stacks.compat.zenml_integrations import activate_only_stack_integrations
from stacks.compat.zenml_interrupts import stop_interrupted_steps
from stacks.flavors.launcher import LauncherSettings, StepProcessError


@step(enable_cache=False)
def launcher_pid() -> Annotated[int, "pid"]:
    """Return the id of the client's process."""
    return os.getpid()


@step(
    step_operator=True,
    enable_cache=False,
    settings={"step_operator": LauncherSettings(grace_period=600)},
)
def launched(how: str, client_pid: int) -> Annotated[dict[str, Any], "seen"]:
    """Return, raise, exit, be killed or hang."""
    print(f"launched {os.getpid()} how={how}", flush=True)
    if how == "raise":
        raise TrainingError("the loss is not a number")
    if how == "exit":
        os._exit(3)
    if how == "sys.exit":
        sys.exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        worker.start()
        print(f"HANGING {os.getpid()} {worker.pid}", flush=True)
        time.sleep(600)
    return {
        "own process": os.getpid() != client_pid,
        "started by the client": os.getppid() == client_pid,
        "torch": "torch" in sys.modules,
        "sklearn": "sklearn" in sys.modules,
    }


@pipeline(name="launched", execution_mode=ExecutionMode.FAIL_FAST)
def launched_pipeline(how: str) -> None:
    """One step here, one launched."""
    launched(how, launcher_pid())


def outcome(how: str) -> dict[str, Any]:
    """Run the pipeline and say what came of it, here and in ZenML's store."""
    raised: BaseException | None = None
    try:
        launched_pipeline(how)
    except (TrainingError, StepProcessError, KeyboardInterrupt) as error:
        raised = error
    run = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
    launched_step = run.steps["launched"]
    info = launched_step.exception_info
    return {
        "raised": type(raised).__name__ if raised else None,
        "message": str(raised) if raised else None,
        "run": run.status.value,
        "step": launched_step.status.value,
        "stored": info.message if info else None,
        "outputs": {k: v[0].load() for k, v in launched_step.outputs.items()},
    }


def statuses() -> list[str]:
    """Return the status of every launched step, oldest first."""
    runs = Client().list_pipeline_runs(sort_by="asc:created", hydrate=True).items
    return [run.steps["launched"].status.value for run in runs]


if __name__ == "__main__":
    if sys.argv[1] == "statuses":
        print("RESULT " + json.dumps(statuses()))
    else:
        activate_only_stack_integrations()
        stop_interrupted_steps()
        outcomes = {}
        for how in sys.argv[1:]:
            outcomes[how] = outcome(how)
            print("RESULT " + json.dumps(outcomes), flush=True)
