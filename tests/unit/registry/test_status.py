"""Whether what serves agrees with the registry, and what is suggested where it does not."""

from dataclasses import replace

import pytest

from registry.deployments import ServiceElsewhere
from registry.next_step import suggest_command
from registry.status import ModelStatus, ServiceStatus, StageHolder

PRODUCTION, STAGING = StageHolder(5, "f5"), StageHolder(6, "f6")
SERVED = ServiceStatus("id5", "5", "f5", "http://127.0.0.1:3000", 1.0, True)
CANARY = replace(SERVED, id="id6", version="6", predictor="f6", weight=0.25)
STATUS = ModelStatus("pets", PRODUCTION, STAGING, (SERVED,))
DEPLOY = "python run.py --pipeline deployment --model pets --set model.version=5"


@pytest.mark.parametrize(
    "status",
    [
        STATUS,
        ModelStatus("pets"),
        replace(STATUS, services=()),
        replace(STATUS, services=(CANARY, replace(SERVED, weight=0.75))),
        replace(STATUS, services=(), elsewhere=(ServiceElsewhere("5", "f5", "sagemaker", "aws"),)),
    ],
)
def test_status_agrees(status: ModelStatus) -> None:
    assert status.agrees, status.problems
    assert status.to_dict()["agrees"] is True


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (replace(STATUS, findings=("The log was cut.",)), "The log was cut."),
        (replace(STATUS, production=None), "No version is in production, but"),
        (
            replace(STATUS, production=STAGING, staging=None),
            "Version 6 is in production, but what serves is 5. Run: "
            + DEPLOY.replace("version=5", "version=6"),
        ),
        (
            replace(STATUS, services=(replace(SERVED, predictor="other"),)),
            f"Version 5 is in production, but what serves is 5. Run: {DEPLOY}",
        ),
        (
            replace(STATUS, services=(replace(SERVED, weight=0.0, is_running=False),)),
            f"Version 5 is in production, but what serves is nothing. Run: {DEPLOY}",
        ),
        (
            replace(STATUS, services=(replace(SERVED, is_running=False),)),
            "Version 5 is given 100% of the requests and does not answer. Run: "
            "zenml model-deployer models start id5",
        ),
        (
            replace(STATUS, staging=None, services=(CANARY, replace(SERVED, weight=0.75))),
            "Version 6, neither in production nor in staging, is given 25% of the requests. Run: "
            "python run.py withdraw 6 --reason WHY --model pets",
        ),
        (replace(STATUS, unrecorded_weight=0.1), "A service without a record in ZenML is given"),
        (
            replace(
                STATUS, services=(), elsewhere=(ServiceElsewhere("4", "f4", "sagemaker", "aws"),)
            ),
            "Version 5 is in production, and the model deployer sagemaker serves version 4. Run: "
            "python run.py status --model pets --stack aws",
        ),
    ],
)
def test_status_names_what_disagrees_and_the_command(status: ModelStatus, problem: str) -> None:
    assert any(line.startswith(problem) for line in status.problems), status.problems
    assert not status.agrees


@pytest.mark.parametrize(
    ("stage", "is_fit", "lacks_approval", "command"),
    [
        ("staging", True, False, "--pipeline deployment --model pets"),
        ("staging", True, True, "approve 3 --reason WHY --model pets"),
        ("archived", True, False, "stage 3 --model pets"),
        ("none", True, True, "stage 3 --model pets"),
        ("none", False, False, "card 3 --model pets"),
        ("production", True, False, "status --model pets"),
    ],
)
def test_next_command_is_one_that_is_not_refused(
    stage: str, is_fit: bool, lacks_approval: bool, command: str
) -> None:
    suggested = suggest_command("pets", 3, stage, is_fit=is_fit, lacks_approval=lacks_approval)
    assert suggested == f"python run.py {command}"
