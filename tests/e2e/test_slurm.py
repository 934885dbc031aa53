"""The launcher on a real Slurm: steps are jobs, which end, fail, are cancelled and moved."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.launcher_runs import command, result
from tests.support.project import Project
from tests.support.slurm_cluster import slurm_cluster
from tests.support.store import snapshot
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def cluster(engine: Callable[..., str]) -> Iterator[dict[str, str]]:
    engine("sbatch")
    engine("slurmctld", "/usr/sbin/slurmctld")
    engine("munged", "/usr/sbin/munged")
    # The path of a socket has to be short.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        slurm_cluster(Path(folder)) as environment,
    ):
        yield environment


@pytest.fixture
def slurm(project: Project, cluster: dict[str, str]) -> Iterator[Project]:
    """A project whose active stack runs launched steps on the cluster."""
    variables = {**cluster, "CV_FACTORY_SHARED": str(project.home / "shared")}
    before = dict(project.environment)
    project.environment.update(variables)
    project.stacks("apply", "slurm", "--set")
    yield project
    project.environment = before


def _squeue(project: Project, columns: str = "%i %T") -> list[str]:
    text = project.command(["squeue", "--noheader", f"--format={columns}"])
    return text.stdout.split("\n")[:-1]


def test_the_client_survives_jobs_that_fail_or_are_killed(slurm: Project) -> None:
    output = slurm.command(command(slurm, "return", "raise", "kill")).stdout
    outcomes = result(output)
    assert outcomes["return"]["step"] == "completed"
    assert outcomes["return"]["outputs"]["seen"]["own process"]
    assert outcomes["raise"]["raised"] == "TrainingError"
    assert outcomes["raise"]["message"] == "the loss is not a number"
    assert "SIGKILL: most often the kernel's out-of-memory killer" in outcomes["kill"]["message"]
    assert "how=kill" in output, "what a job prints, the client shows"
    jobs = Path(slurm.environment["CV_FACTORY_SHARED"]) / "jobs"
    assert not list(jobs.glob("*/job.sh")), "scripts hold tokens"
    assert len(list(jobs.glob("*/log"))) == 2, "of those that failed"


def test_a_cancelled_job_fails_its_step(slurm: Project) -> None:
    with slurm.started(command(slurm, "hang")) as client:
        wait_until(lambda: any("RUNNING" in line for line in _squeue(slurm)), 240)
        (job,) = _squeue(slurm, "%i")
        script = next((Path(slurm.environment["CV_FACTORY_SHARED"]) / "jobs").glob("*/job.sh"))
        assert script.stat().st_mode & 0o777 == 0o700
        slurm.command(["scancel", job])
        output, _ = client.communicate(timeout=120)
    outcome = result(output)["hang"]
    assert outcome["raised"] == "StepProcessError"
    assert f"(Slurm job {job}) was cancelled (scancel)" in outcome["message"]
    assert outcome["step"] == "failed"


def test_a_requeued_training_resumes(slurm: Project) -> None:
    settings = ["train.checkpoint_seconds=0", "gates=[]", "model.channels=[4,8]"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    training = [sys.executable, "run.py", "--pipeline", "training", *arguments]
    shared = Path(slurm.environment["CV_FACTORY_SHARED"])
    (node,) = slurm.command(["sinfo", "--noheader", "--format=%n"]).stdout.split()
    with slurm.started(training) as client:
        wait_until(lambda: _newest(shared) > "000002", 240)
        (job,) = _squeue(slurm, "%i")
        slurm.command(["scontrol", "requeue", job])
        wait_until(lambda: _newest(shared) > "000008", 240)
        # What Slurm does once a node no longer answers.
        lost = ["scontrol", "update", f"NodeName={node}"]
        slurm.command([*lost, "State=DOWN", "Reason=lost"])
        slurm.command([*lost, "State=RESUME"])
        output, errors = client.communicate(timeout=400)
    assert client.returncode == 0, output + errors
    text = output + errors
    assert text.count("Training on the CPU") == 3, "it was started three times"
    assert text.count("Continuing from checkpoint") == 2
    assert text.count("epoch  1/30") == 1, "and went on where it was"
    assert text.count("epoch 30/30") == 1
    assert not list(shared.glob("checkpoints/*"))
    content = snapshot(slurm)
    assert content["status"] == "completed"
    assert content["steps"]["train"]["status"] == "completed"


def _newest(shared: Path) -> str:
    """Return the name of the newest checkpoint: its epoch comes first."""
    return max((path.name for path in shared.glob("checkpoints/*/[0-9]*")), default="")


def test_two_machines_need_a_cluster_that_has_them(slurm: Project) -> None:
    from cv_factory.errors import StackError
    from stacks.flavors.slurm import JobRequest, SlurmJob

    request = JobRequest("too-many", nodes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
        with pytest.raises(StackError, match=r"sbatch refused: .*[Nn]ode"):
            SlurmJob.submit(["true"], ["true"], {}, slurm.root, slurm.root / "job", request)
