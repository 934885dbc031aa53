"""Names on SageMaker, and what a stack file may say of endpoints."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from cv_factory.deployment.sagemaker import names
from cv_factory.deployment.sagemaker.aws_calls import AwsClients
from cv_factory.deployment.sagemaker.image import ServiceImage
from cv_factory.deployment.sagemaker.settings import EndpointSettings
from stacks.spec import read_spec

_VALID = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NEEDED = {
    "role": "arn:aws:iam::123456789012:role/cv-factory-endpoint",
    "region": "eu-central-1",
    "bucket": "a-bucket",
    "repository": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/cv-factory-service",
}


def test_every_name_is_valid_and_every_model_has_an_endpoint_of_its_own() -> None:
    models = ["digits", "by_hand", "by-hand", "by.hand", "x" * 100, "x" * 101, "Ünicode"]
    endpoints = [names.endpoint_name("a-prefix-of-thirty-one-letters", m) for m in models]
    assert len(set(endpoints)) == len(models)
    assert names.endpoint_name("cv-factory", "digits") == "cv-factory-digits"
    for endpoint in endpoints:
        variant = names.variant_name("123456", "0f8fad5b-d9cb-469f-a165-70867728950e")
        assert variant == "v123456-0f8fad5b"
        generated = (endpoint, variant, names.sagemaker_model(endpoint, variant),
                names.new_config_name(endpoint))  # fmt: skip
        assert all(_VALID.fullmatch(name) for name in generated), generated


def test_what_belongs_to_another_endpoint_is_not_taken_for_ones_own() -> None:
    own, longer = "cv-factory-digits", "cv-factory-digits-v2"
    for endpoint in (own, longer):
        variant = names.variant_name("1", "0f8fad5b-d9cb-469f-a165-70867728950e")
        model, config = names.sagemaker_model(endpoint, variant), names.new_config_name(endpoint)
        other = {own: longer, longer: own}[endpoint]
        assert names.parse_variant(endpoint, model) == variant
        assert names.is_endpoint_config(endpoint, config)
        assert names.parse_variant(other, model) is None
        assert not names.is_endpoint_config(other, config)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"subnets": "subnet-1"}, "subnets and security_groups: give both or neither"),
        ({"serverless": True}, "serverless"),
        ({"instance_type": "m5.large"}, "instance_type"),
        ({"role": "cv-factory-endpoint"}, "role"),
        ({"autoscaling": {"max_instances": 1, "min_instances": 2, "invocations_per_minute": 9}},
         "max_instances: must not be less"),
        ({"data_capture": {"percentage": 0}}, "percentage"),
        ({"data_capture": {"percentage": 5, "where": "x"}}, "where"),
    ],
)  # fmt: skip
def test_a_setting_that_is_wrong_is_named(setting: dict[str, Any], message: str) -> None:
    from stacks.flavors.sagemaker_bento import SagemakerBentoConfig

    for kind in (EndpointSettings, SagemakerBentoConfig):
        with pytest.raises(ValidationError, match=re.escape(message)):
            kind(**{**_NEEDED, **setting})


def test_the_stack_file_holds_settings_that_are_valid() -> None:
    variables = {
        **dict.fromkeys(
            ("SAGEMAKER_ROLE_ARN", "ECR_REPOSITORY", "CODEBUILD_PROJECT", "MLFLOW_URI",
             "MLFLOW_USERNAME", "MLFLOW_PASSWORD"), "x"),
        "REGION": "eu-central-1",
        "ARTIFACT_BUCKET": "a-bucket",
        "ENDPOINT_ROLE_ARN": _NEEDED["role"],
        "ECR_REGISTRY": "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        "SERVICE_REPOSITORY": "cv-factory-service",
    }  # fmt: skip
    environment = {f"CV_FACTORY_{name}": value for name, value in variables.items()}
    for stack in ("aws", "aws-step-operator"):
        deployer = read_spec(stack, environment=environment).components["model_deployer"]
        settings = EndpointSettings(**deployer.configuration)
        assert settings.repository == _NEEDED["repository"]
        assert settings.name_prefix == "cv-factory"


def test_the_image_holds_no_torch_no_code_and_no_root() -> None:
    image = ServiceImage(AwsClients("eu-central-1"), _NEEDED["repository"])
    assert re.fullmatch(re.escape(_NEEDED["repository"]) + ":[0-9a-f]{16}", image.name)
    requirements = {line.split("==")[0] for line in image.files["requirements.txt"].splitlines()}
    assert "onnxruntime" in requirements
    assert not requirements & {"torch", "zenml", "mlflow", "scikit-learn"}
    recipe = image.files["Dockerfile"].splitlines()
    assert [line for line in recipe if line.startswith("COPY")] == [
        "COPY requirements.txt /opt/requirements.txt"
    ]
    assert recipe.index("USER service") < recipe.index('CMD ["serve"]')
