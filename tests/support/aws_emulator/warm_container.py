"""Forks a Python that has imported third-party packages for every job, as a container would be run.

Most of a job's time would be those imports. Nothing of the project is imported before the fork.
A line of standard input is a request; what became of the job is written to files that it names.
"""

import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import container

_ROOT = str(Path(__file__).resolve().parents[3])
sys.path.insert(0, _ROOT)  # some packages install a module "tests" of their own
from tests.support.warm_python import PACKAGES, become, exit_after  # noqa: E402

_AWS = (
    "boto3",
    "s3fs",
    "sagemaker.estimator",
    "zenml.entrypoints",
    "zenml.integrations.aws.orchestrators",
    "zenml.integrations.aws.step_operators",
    "zenml.integrations.s3.artifact_stores",
)


def main() -> None:
    """Fork for every line, until there are no more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for jobs
    for name in (*PACKAGES, *_AWS):
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        if os.fork() == 0:
            _watch(json.loads(line))
            return


def _watch(request: dict[str, Any]) -> None:
    """Run a job and write down its process id and, at its end, its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        exit_after(_enter_container, request)
    _write(request["started"], pid)
    _write(request["ended"], os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _enter_container(request: dict[str, Any]) -> None:
    become(request)
    sys.path.remove(_ROOT)
    container.enter(request["command"], request["folder"])


def _write(path: str, number: int) -> None:
    """Write a number, in one go for those who look."""
    partial = Path(f"{path}.partial")
    partial.write_text(str(number), encoding="ascii")
    partial.rename(path)


if __name__ == "__main__":
    main()
