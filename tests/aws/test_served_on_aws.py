"""The unchanged deployment pipeline on the emulated stack ``aws``: an endpoint that answers.

Comes after the tests of the training, which count its jobs.
"""

import json
from collections import Counter
from typing import Any

import pytest

from cv_factory.data.encode import encode_png
from tests.support.cloud import Cloud, CloudProject, documented
from tests.support.commands import zenml_models
from tests.support.project import Completed
from tests.support.store import snapshot

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1200)]

_ENDPOINT = "cv-factory-digits"
_STEPS = {"build_bundle", "deploy", "smoke_test", "promote"}
_DEPLOYMENT = ("--pipeline", "deployment")
#: A model that trains in a second, and a gate that it passes.
_OTHER_TRAINING = ("--pipeline", "training", "--set", "model.name=logistic_regression",
                   "--set", "gates=[{metric: accuracy, min: 0.3}]",
                   "--set", "transform.pca.n_components=24")  # fmt: skip


@pytest.fixture(scope="module")
def deployed(
    cloud: Cloud, cloud_project: CloudProject, trained_on_aws: tuple[str, dict[str, Any]]
) -> tuple[Completed, set[str]]:
    """Version 1, deployed by the pipeline, and the jobs that did it."""
    before = set(cloud.job_logs)
    arguments = documented("python run.py --pipeline deployment --stack aws")
    done = cloud_project.run(*_DEPLOYMENT, "--stack", "aws", *arguments, timeout=900)
    return done, set(cloud.job_logs) - before


def _digit() -> bytes:
    from sklearn.datasets import load_digits

    return encode_png((load_digits().images[0] * (255 / 16)).round().astype("uint8")[..., None])


def _answers(cloud: Cloud, n: int) -> list[dict[str, Any]]:
    """Send one digit n times to the endpoint, as any program that uses boto3 would."""
    runtime = cloud.aws("sagemaker-runtime")
    return [
        json.loads(
            runtime.invoke_endpoint(EndpointName=_ENDPOINT, Body=_digit(), ContentType="image/png")[
                "Body"
            ].read()
        )
        for _ in range(n)
    ]


def _stages(project: CloudProject) -> dict[int, str]:
    return {v["number"]: v["stage"] for v in snapshot(project)["models"]["digits"]}


def test_the_pipeline_makes_an_endpoint_that_answers(
    cloud: Cloud, cloud_project: CloudProject, deployed: tuple[Completed, set[str]]
) -> None:
    done, jobs = deployed
    assert f"Served: digits version 1 (production) at sagemaker://{_ENDPOINT}" in done.stdout
    assert "Verified: 20 golden samples" in done.stdout
    assert {name.split("-", 1)[1] for name in jobs} >= _STEPS, "every step was a job"
    (answer,) = _answers(cloud, 1)
    assert (answer["model"], answer["version"]) == ("digits", "1")
    assert answer["predictions"][0]["label"] == "0"
    cloud_project.run("sample", *documented("python run.py sample"))
    predicted = cloud_project.run("predict", "--url", *documented("python run.py predict --url "))
    assert "samples/3/1.png: 3 " in predicted.stdout
    assert "digits version 1" in predicted.stdout
    assert cloud.attempts == "", "nothing tried to reach another machine"


def test_a_second_version_is_a_canary_then_serves_and_is_rolled_back(
    cloud: Cloud, cloud_project: CloudProject, deployed: tuple[Completed, set[str]]
) -> None:
    on_variant = ("--stack", "aws-step-operator")
    cloud_project.run(*_OTHER_TRAINING, *on_variant)
    canary = documented("python run.py --pipeline deployment --set endpoint.canary_share=")
    share = ("--set", f"endpoint.canary_share={canary[0]}")
    done = cloud_project.run(*_DEPLOYMENT, *share, *on_variant)
    assert "digits version 2 (staging, 10% of the requests)" in done.stdout
    description = cloud.aws("sagemaker").describe_endpoint(EndpointName=_ENDPOINT)
    weights = {v["VariantName"][:2]: v["CurrentWeight"] for v in description["ProductionVariants"]}
    assert weights == {"v1": pytest.approx(0.9), "v2": pytest.approx(0.1)}
    assert Counter(answer["version"] for answer in _answers(cloud, 60))["1"] > 30

    cloud_project.run(*_DEPLOYMENT, *on_variant)
    assert {answer["version"] for answer in _answers(cloud, 10)} == {"2"}
    assert _stages(cloud_project) == {1: "archived", 2: "production"}
    rollback = documented("python run.py rollback ")
    done = cloud_project.run("rollback", *rollback, *on_variant)
    assert f"Served: digits version 1 (production) at sagemaker://{_ENDPOINT}" in done.stdout
    assert {answer["version"] for answer in _answers(cloud, 10)} == {"1"}
    assert _stages(cloud_project) == {1: "production", 2: "archived"}


def test_zenml_commands_list_stop_and_delete_the_service(
    cloud: Cloud, cloud_project: CloudProject, deployed: tuple[Completed, set[str]]
) -> None:
    arguments = [
        " ".join([verb, *documented(f"zenml model-deployer models {verb}")])
        for verb in ("list", "describe", "logs", "delete")
    ]
    listed, described, logs, _, empty = zenml_models(cloud_project, *arguments, "list")
    assert "digits" in listed
    for phrase in (_ENDPOINT, "InService", "100%"):
        assert phrase in described
    assert '"path":"/invocations"' in "".join(logs.splitlines())
    assert _ENDPOINT not in empty
    sagemaker = cloud.aws("sagemaker")
    assert sagemaker.list_endpoints(NameContains=_ENDPOINT)["Endpoints"] == []
    assert sagemaker.list_endpoint_configs(NameContains=_ENDPOINT)["EndpointConfigs"] == []
    assert not [m for m in sagemaker.list_models()["Models"] if _ENDPOINT in m["ModelName"]]
    assert cloud.objects(f"endpoints/{_ENDPOINT}/") == {}
