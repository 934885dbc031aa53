"""Endpoints of the stack ``aws`` on the emulator, without ZenML: what answers, and what is left."""

import _thread
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from cv_factory.config.serving import ServingConfig
from cv_factory.data.encode import encode_png
from cv_factory.deployment.sagemaker.aws_errors import AwsError
from cv_factory.deployment.sagemaker.endpoint import SagemakerEndpoint
from cv_factory.deployment.sagemaker.endpoint_resources import EndpointError
from cv_factory.deployment.sagemaker.settings import EndpointSettings
from cv_factory.deployment.sagemaker.transport import EndpointTransport
from cv_factory.deployment.verify import VerificationError
from cv_factory.errors import ConfigError, CVFactoryError
from cv_factory.serving.bundle import Bundle
from cv_factory_client import PredictionClient, ServiceError
from tests.support.cloud import Cloud
from tests.support.predictors import digits_predictor
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

_IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/cv-factory-service:tag"
_ONE, _TWO, _THREE = "v1-0000000a", "v2-0000000b", "v3-0000000c"
_SETTINGS = {
    "role": "arn:aws:iam::123456789012:role/cv-factory-endpoint",
    "region": "eu-central-1",
    "repository": _IMAGE.partition(":")[0],
    "image": _IMAGE,
    "instances": 2,
    "subnets": "subnet-1, subnet-2",
    "security_groups": "sg-1",
    "kms_key": "arn:aws:kms:eu-central-1:123456789012:key/one",
    "tags": {"project": "cv-factory"},
    "autoscaling": {"max_instances": 4, "invocations_per_minute": 3000},
    "data_capture": {"percentage": 100, "prefix": "captured"},
    "polling_interval": 0.1,
}


def _bundle(version: str, **serving: Any) -> Bundle:
    predictor, _, _ = digits_predictor("logistic_regression")
    config = ServingConfig.model_validate(serving)
    return Bundle(predictor, config, "by_hand", version, "2026-01-01T00:00:00+00:00")


def _digit() -> bytes:
    return encode_png(digits_predictor("logistic_regression")[1].images[0])


@pytest.fixture(scope="module")
def endpoint(cloud: Cloud) -> Iterator[SagemakerEndpoint]:
    """An endpoint with version 1, which has all requests; gone at the end, and nothing is left."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        settings = EndpointSettings.model_validate({**_SETTINGS, "bucket": cloud.bucket})
        created = SagemakerEndpoint.for_model("by_hand", settings)
        created.deploy(_ONE, _bundle("1", cache={"max_entries": 4}))
        created.set_weights({_ONE: 1.0})
        yield created
        created.remove(_ONE)
        assert _resources(cloud, created) == {}
        assert created.state() is None


def _resources(cloud: Cloud, endpoint: SagemakerEndpoint) -> dict[str, list[str]]:
    """Return everything of an endpoint that is there."""
    sagemaker, scaling = cloud.aws("sagemaker"), cloud.aws("application-autoscaling")
    resources = {
        "endpoints": [e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]],
        "configs": [
            c["EndpointConfigName"] for c in sagemaker.list_endpoint_configs()["EndpointConfigs"]
        ],
        "models": [m["ModelName"] for m in sagemaker.list_models()["Models"]],
        "Bentos": list({k.split("/")[2] for k in cloud.objects(f"endpoints/{endpoint.name}/")}),
        "scaled": [
            target["ResourceId"]
            for target in scaling.describe_scalable_targets(ServiceNamespace="sagemaker")[
                "ScalableTargets"
            ]
        ],
    }
    own = {
        kind: [name for name in names if kind == "Bentos" or endpoint.name in name]
        for kind, names in resources.items()
    }
    return {kind: names for kind, names in own.items() if names}


def _client(endpoint: SagemakerEndpoint, variant: str | None = None) -> PredictionClient:
    transport = EndpointTransport(endpoint.aws, endpoint.name, variant)
    return PredictionClient("sagemaker://endpoint", transport=transport)


@contextmanager
def _background_requests(endpoint: SagemakerEndpoint) -> Iterator[Callable[[], Counter[str]]]:
    """Ask without a pause from two clients; yields what counts the answers by version."""
    answers: Counter[str] = Counter()
    finished = threading.Event()

    def send_requests() -> None:
        with _client(endpoint) as client:
            while not finished.is_set():
                try:
                    answers[client.predict(_digit()).version] += 1
                except (CVFactoryError, ServiceError) as error:
                    answers[f"lost: {error}"] += 1

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(send_requests) for _ in range(2)]
        try:
            yield lambda: Counter(dict(answers))
        finally:
            finished.set()
        for client in clients:
            client.result()


def test_resources_match_the_settings(cloud: Cloud, endpoint: SagemakerEndpoint) -> None:
    sagemaker = cloud.aws("sagemaker")
    state = endpoint.state()
    assert state is not None
    config = sagemaker.describe_endpoint_config(EndpointConfigName=state.config)
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.m5.large", 2)
    assert (
        config["KmsKeyId"] == config["DataCaptureConfig"]["KmsKeyId"] == endpoint.settings.kms_key
    )
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    assert model["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    source = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert source["S3Uri"] == f"s3://{cloud.bucket}/endpoints/{endpoint.name}/{_ONE}/"
    assert {"Key": "project", "Value": "cv-factory"} in sagemaker.list_tags(
        ResourceArn=model["ModelArn"]
    )["Tags"]
    scaling = cloud.aws("application-autoscaling")
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["ResourceId"] == f"endpoint/{endpoint.name}/variant/{_ONE}"
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 3000


def test_the_endpoint_answers_refuses_and_captures(
    cloud: Cloud, endpoint: SagemakerEndpoint
) -> None:
    with _client(endpoint) as client:
        one = client.predict(_digit())
        assert (one.model, one.version) == ("by_hand", "1")
        with pytest.raises(
            ServiceError, match="rejected the request \\(422\\): the image cannot be used"
        ):
            client.predict(b"no image")
    captured = [json.loads(cloud.read(key)) for key in cloud.objects(f"captured/{endpoint.name}/")]
    outputs = [line["captureData"]["endpointOutput"]["data"] for line in captured]
    assert any(one.id in output for output in outputs)
    lines: list[str] = []

    def is_logged() -> bool:
        lines[:] = endpoint.logs.lines(_ONE, tail=50)
        return any('"status":422' in line for line in lines)

    wait_until(is_logged, 60)
    assert endpoint.logs.lines(_ONE, tail=1) == lines[-1:]
    whole = endpoint.logs.lines(_ONE)
    assert len(whole) >= len(lines)
    assert any("SageMaker decides who may send requests" in line for line in whole)


def test_cache_control_bypasses_the_response_cache(endpoint: SagemakerEndpoint) -> None:
    transport = EndpointTransport(endpoint.aws, endpoint.name)
    with httpx.Client(base_url="sagemaker://endpoint", transport=transport) as client:

        def is_remembered(**headers: str) -> bool:
            headers |= {"Content-Type": "image/png"}
            return "cached" in client.post("/predict", content=_digit(), headers=headers).json()

        wait_until(lambda: all(is_remembered() for _ in range(8)), 60)
        assert not any(is_remembered(**{"Cache-Control": "no-cache"}) for _ in range(8))


def test_an_update_is_verified_first_and_loses_no_request(
    cloud: Cloud, endpoint: SagemakerEndpoint
) -> None:
    with _background_requests(endpoint) as answers:
        result = endpoint.deploy(_TWO, _bundle("2"), keep={_ONE})
        assert (result.version, result.n_samples) == ("2", 20)
        assert result.largest_difference < 1e-5
        wait_until(lambda: answers()["1"] > 20, 60)
        assert set(answers()) == {"1"}, "a verified version is given nothing yet"
        _what_serves_all_requests_stays(cloud, endpoint)

        endpoint.set_weights({_ONE: 0.9, _TWO: 0.1})
        before = answers()
        wait_until(lambda: sum((answers() - before).values()) >= 150, 60)
        share = (answers() - before)["2"] / sum((answers() - before).values())
        assert 0.02 < share < 0.2, share
        state = endpoint.state()
        assert state is not None
        assert state.weights == {_ONE: pytest.approx(0.9), _TWO: pytest.approx(0.1)}
        assert {v.instances for v in state.variants} == {2}, "a change of weights keeps instances"

        endpoint.set_weights({_TWO: 1.0})
        before = answers()
        wait_until(lambda: (answers() - before)["2"] > 20, 60)
        endpoint.set_weights({_ONE: 1.0})
        endpoint.remove(_TWO)
        before = answers()
        wait_until(lambda: (answers() - before)["1"] > 20, 60)
    assert set(answers()) == {"1", "2"}, "no request was lost"
    assert endpoint.weights() == {_ONE: 1.0}


def _what_serves_all_requests_stays(cloud: Cloud, endpoint: SagemakerEndpoint) -> None:
    """Version 1 has all requests, version 2 none."""
    before = _resources(cloud, endpoint)
    with pytest.raises(EndpointError, match=f"beside {_TWO}: give requests to another one first"):
        endpoint.remove(_ONE)
    assert _resources(cloud, endpoint) == before, "it is scaled as before"
    with (
        cloud.going_wrong(stuck_weights=(endpoint.name,)),
        pytest.raises(EndpointError, match="SageMaker did not change the weights"),
    ):
        _with_timeout(endpoint, 0.2).set_weights({_TWO: 1.0})
    assert endpoint.weights() == {_ONE: 1.0}, "what was asked for is not what serves"


def _with_timeout(endpoint: SagemakerEndpoint, seconds: float) -> SagemakerEndpoint:
    settings = endpoint.settings.model_copy(update={"start_timeout": seconds})
    return replace(endpoint, settings=settings)


def test_an_interrupted_deployment_is_undone_or_says_what_ends_its_costs(
    cloud: Cloud, endpoint: SagemakerEndpoint
) -> None:
    before = _resources(cloud, endpoint)

    def interrupt() -> None:
        wait_until(
            lambda: (state := endpoint.state()) is not None and state.status == "Updating", 60
        )
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        endpoint.deploy(_TWO, _bundle("2"), keep={_ONE})
    assert endpoint.weights() == {_ONE: 1.0}
    after = _resources(cloud, endpoint)
    assert {kind: len(names) for kind, names in after.items()} == {
        kind: len(names) for kind, names in before.items()
    }
    with pytest.raises(EndpointError, match="is still Updating after") as failure:
        _with_timeout(endpoint, 0.2).deploy(_TWO, _bundle("2"), keep={_ONE})
    assert "Nor could it be undone" in str(failure.value)
    deletion = f"delete-endpoint --region eu-central-1 --endpoint-name {endpoint.name}"
    assert f"aws sagemaker {deletion}" in str(failure.value)
    endpoint.remove(_TWO)
    assert endpoint.weights() == {_ONE: 1.0}


def test_a_version_that_does_not_start_leaves_the_old_one(
    cloud: Cloud, endpoint: SagemakerEndpoint
) -> None:
    before = _resources(cloud, endpoint)
    good = _bundle("3")
    wrong = replace(
        good.predictor.golden, probabilities=np.roll(good.predictor.golden.probabilities, 1, axis=1)
    )
    broken = replace(good, predictor=replace(good.predictor, golden=wrong))
    with pytest.raises(EndpointError) as failure:
        endpoint.deploy(_THREE, broken, keep={_ONE})
    assert f"production variant {_THREE} did not pass the ping health check" in str(failure.value)
    assert "What was served before still is." in str(failure.value)
    assert "The end of its log:" in str(failure.value)
    assert "it must not be used on this machine" in str(failure.value), "which says why"
    assert endpoint.weights() == {_ONE: 1.0}
    after = _resources(cloud, endpoint)
    assert {kind: len(names) for kind, names in after.items()} == {
        kind: len(names) for kind, names in before.items()
    }


def test_a_failed_verification_leaves_the_old_version_and_no_leftovers(
    cloud: Cloud, endpoint: SagemakerEndpoint
) -> None:
    killed, role = "v9-0000dead", endpoint.settings.role
    place = {"Bucket": cloud.bucket, "Key": f"endpoints/{endpoint.name}/{killed}/src/bundle.json"}
    cloud.s3.client().put_object(**place, Body=b"{}")
    for name in (f"{endpoint.name}-{killed}", f"{endpoint.name}-2-{killed}"):
        cloud.aws("sagemaker").create_model(ModelName=name, ExecutionRoleArn=role)
    with (
        cloud.going_wrong(misdirected=(_TWO, _ONE)),
        pytest.raises(VerificationError, match="answers as version 1, not as 2"),
    ):
        # As where another ZenML knows version 1.
        endpoint.deploy(_TWO, _bundle("2"))
    assert endpoint.weights() == {_ONE: 1.0}
    existing = _resources(cloud, endpoint)
    assert existing["Bentos"] == [_ONE]
    others = f"{endpoint.name}-2-{killed}"
    own = f"{endpoint.name}-{_ONE}"
    assert sorted(existing["models"]) == [others, own], "another endpoint's stays"
    cloud.aws("sagemaker").delete_model(ModelName=others)
    with _client(endpoint) as client:
        assert client.predict(_digit()).version == "1"


def test_refusals_name_action_resource_and_quota_and_leave_nothing(
    cloud: Cloud, endpoint: SagemakerEndpoint
) -> None:
    before = _resources(cloud, endpoint)
    update = ("sagemaker:UpdateEndpoint",)
    with cloud.going_wrong(refused_actions=update), pytest.raises(AwsError) as refused:
        endpoint.deploy(_TWO, _bundle("2"), keep={_ONE})
    assert "permission is missing for sagemaker:UpdateEndpoint on arn:aws:sagemaker" in str(
        refused.value
    )
    with cloud.going_wrong(over_quota=update), pytest.raises(AwsError) as scarce:
        endpoint.deploy(_TWO, _bundle("2"), keep={_ONE})
    assert "'ml.m5.large for endpoint usage' is 0 Instances" in str(scarce.value)
    assert "Service Quotas" in str(scarce.value)
    for settings in ({"access": {"jwt": {"issuer": "i", "audience": "a", "jwks": "https://j"}}},
                     {"log": {"predictions": "/predictions"}}):  # fmt: skip
        with pytest.raises(ConfigError, match="Leave it out for this stack"):
            endpoint.deploy(_TWO, _bundle("2", **settings), keep={_ONE})
    assert _resources(cloud, endpoint) == before
    with pytest.raises(EndpointError, match=f"has no variant {_TWO}"):
        endpoint.set_weights({_TWO: 1.0})
