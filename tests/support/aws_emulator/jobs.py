"""Runs what SageMaker would run: each job's entrypoint, as a process with its environment."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from api_limits import violations
from checkpoints import Checkpoints
from controls import Controls
from moto.core.responses import ActionResult
from moto.sagemaker.exceptions import AWSValidationException
from moto.sagemaker.models import FakePipelineExecution, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

#: Variables of the emulator that a container has, too: this machine's programs and servers.
_CONTAINER_VARIABLES = (
    "PATH",
    "LANG",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_EC2_METADATA_DISABLED",
    "CV_FACTORY_TEST_ATTEMPTS",
    "CV_FACTORY_TEST_PROJECT",
    "SAGEMAKER_USER_CONFIG_OVERRIDE",
    "MLFLOW_DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "OMP_NUM_THREADS",
)
_WARM_CONTAINER = Path(__file__).with_name("warm_container.py")
_STARTED, _ENDED = ".started", ".ended"
_POLL_INTERVAL_S = 0.05


class Jobs:
    """All jobs that were started.

    Attributes:
        folder: Holds a folder and a log for each.
        running: Process ids by job name.
        taken_away: Names of the jobs whose spot instance has just been.
        interrupted: Names of the jobs to which that happened.
    """

    def __init__(self, folder: Path) -> None:
        """Start the Python from which jobs are forked."""
        self.folder = folder
        self.running: dict[str, int] = {}
        self.taken_away: set[str] = set()
        self.interrupted: set[str] = set()
        self._lock = threading.Lock()
        self._warm = subprocess.Popen([sys.executable, str(_WARM_CONTAINER)], stdin=subprocess.PIPE)

    def train(self, name: str, request: Mapping[str, Any], environment: Mapping[str, str]) -> int:
        """Run a training job to its end, on one spot instance after the other if need be."""
        command = _command(request["AlgorithmSpecification"])
        checkpoints = Checkpoints(request)
        while True:
            app = self._new_app(name)
            # What a container has under this path, a process cannot.
            here = {k: v.replace(checkpoints.in_job, f"{app}/ml") for k, v in environment.items()}
            with checkpoints.kept(app / "ml", partial(self._go_wrong, name, request)):
                code = self.run(name, command, here, app)
            if name not in self.taken_away:
                return code
            self.taken_away.remove(name)

    def _go_wrong(self, name: str, request: Mapping[str, Any]) -> None:
        """Kill a job whose first checkpoint is on S3, if the tests ask for it."""
        controls = Controls.read(self.folder)
        is_spot = request.get("EnableManagedSpotTraining", False)
        if is_spot and name not in self.interrupted and _names(controls.interrupted_jobs, name):
            self.interrupted.add(name)
            self.taken_away.add(name)
            self.kill(name)
        elif _names(controls.dying_jobs, name):
            self.kill(name)

    def _new_app(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name[:40]}-", dir=self.folder))

    def run(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        app: Path | None = None,
    ) -> int:
        """Run a job's command to its end and return the exit code."""
        app = app or self._new_app(name)
        variables = {
            **{key: os.environ[key] for key in _CONTAINER_VARIABLES if key in os.environ},
            "HOME": str(app),
            "TMPDIR": str(app),
            "PYTHONUNBUFFERED": "1",
            # As the role of a job has them from the instance's metadata service.
            "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
            "ZENML_CONFIG_PATH": str(app / ".zenconfig"),
            "ZENML_ENABLE_REPO_INIT_WARNINGS": "False",
            "ZENML_ANALYTICS_OPT_IN": "false",
            **environment,
        }
        log = str(self.folder / f"{name}.log")
        request = {
            "command": command,
            "environment": variables,
            "folder": str(app),
            "output": log,
            "errors": log,
            "append": True,
            "started": str(app / _STARTED),
            "ended": str(app / _ENDED),
        }
        assert self._warm.stdin is not None
        with self._lock:
            self._warm.stdin.write(json.dumps(request).encode() + b"\n")
            self._warm.stdin.flush()
        self.running[name] = self._number_in(app / _STARTED)
        return self._number_in(app / _ENDED)

    def _number_in(self, file: Path) -> int:
        """Return what a file holds, as soon as it is there."""
        while not file.exists():
            if self._warm.poll() is not None:
                raise RuntimeError("the Python that jobs are forked from has ended: see the log")
            time.sleep(_POLL_INTERVAL_S)
        return int(file.read_text(encoding="ascii"))

    def kill(self, name: str) -> None:
        """End a job with all its processes."""
        with suppress(ProcessLookupError, KeyError):
            os.killpg(self.running[name], signal.SIGKILL)

    def kill_all(self) -> None:
        """End everything that runs."""
        for name in list(self.running):
            self.kill(name)
        self._warm.kill()
        self._warm.wait()


def install(jobs: Jobs) -> None:
    """Make moto's SageMaker run what it is given."""
    _run_pipelines(jobs)
    _run_job_kind(jobs, "Training", "AlgorithmSpecification", "training_jobs")
    _run_job_kind(jobs, "Processing", "AppSpecification", "processing_jobs")

    def stop_training_job(response: SageMakerResponse) -> ActionResult:
        name = response._get_param("TrainingJobName")
        job = response.sagemaker_backend.training_jobs[name]
        job.training_job_status = job.secondary_status = "Stopped"
        jobs.kill(name)
        return ActionResult({})

    SageMakerResponse.stop_training_job = stop_training_job


def _run_job_kind(jobs: Jobs, kind: str, specification: str, store: str) -> None:
    """Run the jobs of one kind, each in a thread."""
    action = f"create_{kind.lower()}_job"
    status = f"{kind.lower()}_job_status"
    create: Callable[[SageMakerResponse], ActionResult] = getattr(SageMakerResponse, action)

    def create_and_run(response: SageMakerResponse) -> ActionResult:
        request = json.loads(response.body)
        _refuse_violations(f"Create{kind}JobRequest", request)
        result = create(response)
        name = request[f"{kind}JobName"]
        job = getattr(response.sagemaker_backend, store)[name]
        setattr(job, status, "InProgress")
        environment = {
            **request.get("Environment", {}),
            f"{kind.upper()}_JOB_ARN": job.arn,
            "TRAINING_JOB_NAME": name,
        }

        def run() -> None:
            if kind == "Training":
                code = jobs.train(name, request, environment)
            else:
                code = jobs.run(name, _command(request[specification]), environment)
            if getattr(job, status) != "Stopped":
                final_status = "Completed" if code == 0 else "Failed"
                job.secondary_status = final_status
                job.failure_reason = "" if code == 0 else f"AlgorithmError: exit code {code}"
                setattr(job, status, final_status)

        threading.Thread(target=run, daemon=True).start()
        return result

    setattr(SageMakerResponse, action, create_and_run)


def _run_pipelines(jobs: Jobs) -> None:
    start = SageMakerModelBackend.start_pipeline_execution
    create: Callable[[SageMakerResponse], ActionResult] = SageMakerResponse.create_pipeline

    def create_pipeline(response: SageMakerResponse) -> ActionResult:
        request = json.loads(response.body)
        _refuse_violations("CreatePipelineRequest", request)
        for step in json.loads(request["PipelineDefinition"])["Steps"]:
            _refuse_violations(f"Create{step['Type']}JobRequest", step["Arguments"])
        return create(response)

    def start_pipeline_execution(
        backend: SageMakerModelBackend, pipeline_name: str, *arguments: Any, **options: Any
    ) -> dict[str, str]:
        result = start(backend, pipeline_name, *arguments, **options)
        arn = result["PipelineExecutionArn"]
        execution = backend.pipelines[pipeline_name].pipeline_executions[arn]
        execution.pipeline_execution_status = "Executing"
        definition = json.loads(execution.pipeline_definition_for_execution)
        execution.step_states = {}
        threading.Thread(target=_run_steps, args=(jobs, execution, definition), daemon=True).start()
        return result

    def list_pipeline_execution_steps(response: SageMakerResponse) -> ActionResult:
        arn = response._get_param("PipelineExecutionArn")
        name = arn.split("pipeline/")[1].split("/")[0]
        execution = response.sagemaker_backend.pipelines[name].pipeline_executions[arn]
        steps = [
            {"StepName": step, "StepStatus": state, "FailureReason": reason}
            for step, (state, reason) in execution.step_states.items()
        ]
        return ActionResult({"PipelineExecutionSteps": steps})

    SageMakerResponse.create_pipeline = create_pipeline
    SageMakerResponse.list_pipeline_execution_steps = list_pipeline_execution_steps
    SageMakerModelBackend.start_pipeline_execution = start_pipeline_execution


def _run_steps(jobs: Jobs, execution: FakePipelineExecution, definition: dict[str, Any]) -> None:
    """Run a pipeline's steps one after the other, none whose predecessors did not succeed."""
    execution_id = execution.arn.rsplit("/", 1)[1]
    values = {
        "Execution.PipelineExecutionArn": execution.arn,
        "Execution.PipelineExecutionId": execution_id,
        "Execution.PipelineName": execution.arn.split("pipeline/")[1].split("/")[0],
    }
    todo = {step["Name"]: step for step in definition["Steps"]}
    states = execution.step_states
    done: set[str] = set()
    while ready := [n for n, step in todo.items() if set(step.get("DependsOn", [])) <= done]:
        name = ready[0]
        arguments = todo.pop(name)["Arguments"]
        container = arguments.get("AlgorithmSpecification") or arguments["AppSpecification"]
        environment = {
            key: str(values[value["Get"]]) if isinstance(value, dict) else value
            for key, value in arguments.get("Environment", {}).items()
        }
        states[name] = ("Executing", "")
        code = jobs.run(f"{execution_id}-{name}", _command(container), environment)
        if code == 0:
            states[name] = ("Succeeded", "")
            done.add(name)
        else:
            states[name] = ("Failed", f"ClientError: exit code {code}")
            break
    failed = [name for name, (state, _) in states.items() if state == "Failed"]
    execution.pipeline_execution_failure_reason = f"failed: {failed}" if failed else None
    execution.pipeline_execution_status = "Failed" if failed or todo else "Succeeded"


def _command(container: dict[str, Any]) -> list[str]:
    return [*container["ContainerEntrypoint"], *container.get("ContainerArguments", [])]


def _names(words: tuple[str, ...], job: str) -> bool:
    return any(word in job for word in words)


def _refuse_violations(shape: str, request: dict[str, Any]) -> None:
    problems = violations("sagemaker", shape, request)
    limits = request.get("StoppingCondition", {})
    if request.get("EnableManagedSpotTraining"):
        longest = limits.get("MaxRuntimeInSeconds", 24 * 3600)
        if limits.get("MaxWaitTimeInSeconds", 0) < longest:
            problems.append("MaxWaitTimeInSeconds must not be less than MaxRuntimeInSeconds")
    if problems:
        raise AWSValidationException("; ".join(problems))
