"""The CloudFormation template: valid, no right more than is needed, nothing open to anyone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from stacks.cloudformation import variable_name
from stacks.spec import STACKS_DIR, read_spec

if TYPE_CHECKING:
    from tests.support.cloud import Cloud

_FILE = STACKS_DIR / "aws" / "template.yaml"
#: Every right that the roles have, and on what. A new one must be added here, too.
_RIGHTS = {
    "SagemakerRole": {
        "bucket": "s3:GetBucketLocation s3:ListBucket",
        "objects": "s3:AbortMultipartUpload s3:DeleteObject s3:GetObject "
        "s3:ListMultipartUploadParts s3:PutObject",
        "images": "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:GetDownloadUrlForLayer",
        "jobs": "sagemaker:AddTags sagemaker:CreateProcessingJob sagemaker:CreateTrainingJob "
        "sagemaker:DescribeProcessingJob sagemaker:DescribeTrainingJob "
        "sagemaker:StopProcessingJob sagemaker:StopTrainingJob",
        "logs": "logs:CreateLogGroup logs:CreateLogStream logs:DescribeLogStreams "
        "logs:FilterLogEvents logs:GetLogEvents logs:PutLogEvents",
        "anything": "cloudwatch:PutMetricData ecr:GetAuthorizationToken",
    },
    "SagemakerDeploys": {
        "endpoints": "sagemaker:AddTags sagemaker:CreateEndpoint sagemaker:CreateEndpointConfig "
        "sagemaker:CreateModel sagemaker:DeleteEndpoint sagemaker:DeleteEndpointConfig "
        "sagemaker:DeleteModel sagemaker:DescribeEndpoint sagemaker:DescribeEndpointConfig "
        "sagemaker:DescribeModel sagemaker:InvokeEndpoint sagemaker:UpdateEndpoint "
        "sagemaker:UpdateEndpointWeightsAndCapacities",
        "anything": "application-autoscaling:DescribeScalableTargets "
        "sagemaker:ListEndpointConfigs sagemaker:ListModels",
        "scaling": "application-autoscaling:DeregisterScalableTarget "
        "application-autoscaling:PutScalingPolicy application-autoscaling:RegisterScalableTarget",
        "alarms": "cloudwatch:DeleteAlarms cloudwatch:DescribeAlarms cloudwatch:PutMetricAlarm",
        "linked role": "iam:CreateServiceLinkedRole",
        "images": "ecr:DescribeImages",
        "builds": "codebuild:BatchGetBuilds codebuild:StartBuild",
        "logs": "logs:GetLogEvents",
    },
    "EndpointRole": {
        "bucket": "s3:GetBucketLocation s3:ListBucket",
        "Bentos": "s3:GetObject",
        "captured": "s3:PutObject",
        "images": "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:GetDownloadUrlForLayer",
        "logs": "logs:CreateLogGroup logs:CreateLogStream logs:DescribeLogStreams "
        "logs:PutLogEvents",
        "anything": "cloudwatch:PutMetricData ecr:GetAuthorizationToken",
    },
    "BuildRole": {
        "bucket": "s3:GetBucketLocation s3:ListBucket",
        "objects": "s3:GetObject",
        "images": "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:CompleteLayerUpload "
        "ecr:GetDownloadUrlForLayer ecr:InitiateLayerUpload ecr:PutImage ecr:UploadLayerPart",
        "logs": "logs:CreateLogGroup logs:CreateLogStream logs:PutLogEvents",
        "anything": "ecr:GetAuthorizationToken",
    },
    "SagemakerPassesRoles": {"roles": "iam:PassRole"},
    "SagemakerInVpc": {
        "anything": "ec2:CreateNetworkInterface ec2:CreateNetworkInterfacePermission "
        "ec2:DeleteNetworkInterface ec2:DeleteNetworkInterfacePermission "
        "ec2:DescribeDhcpOptions ec2:DescribeNetworkInterfaces ec2:DescribeSecurityGroups "
        "ec2:DescribeSubnets ec2:DescribeVpcs",
    },
    "UseOfKey": {"key": "kms:CreateGrant kms:Decrypt kms:DescribeKey kms:GenerateDataKey"},
}
_PLACES = (
    ("ArtifactBucket.Arn}/*", "objects"), ("ArtifactBucket.Arn}/endpoints/*", "Bentos"),
    ("ArtifactBucket.Arn}/captured/*", "captured"), ("ArtifactBucket.Arn", "bucket"),
    ("Images.Arn", "images"), ("SagemakerRole.Arn", "roles"), (":training-job/*", "jobs"),
    (":endpoint/${ProjectName}-*", "endpoints"), (":scalable-target/", "scaling"),
    (":alarm:TargetTracking-", "alarms"), (":role/aws-service-role/", "linked role"),
    ("ImageBuilds.Arn", "builds"), (":logs:", "logs"), ("KmsKeyArn", "key"), ("*", "anything"),
)  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms, such as ``!Ref``, as what stands behind them."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node, deep=True)


_Loader.add_multi_constructor("!", _short_form)


def _template() -> dict[str, Any]:
    template: dict[str, Any] = yaml.load(_FILE.read_text(), _Loader)
    return template


def _statements(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    properties = resource["Properties"]
    policies = [p["PolicyDocument"] for p in properties.get("Policies", [])]
    for policy in [*policies, *filter(None, [properties.get("PolicyDocument")])]:
        yield from policy["Statement"]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_cfn_lint_finds_nothing() -> None:
    program = str(Path(sys.executable).with_name("cfn-lint"))
    command = [sys.executable, program, "--non-zero-exit-code", "informational", str(_FILE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_roles_have_these_rights_and_no_more() -> None:
    rights: dict[str, dict[str, str]] = {}
    for name, resource in _template()["Resources"].items():
        if not resource["Type"].startswith("AWS::IAM::"):
            continue
        by_place: dict[str, set[str]] = {}
        for statement in _statements(resource):
            assert statement["Effect"] == "Allow"
            resources = str(statement["Resource"])
            place = next(place for part, place in _PLACES if part in resources)
            by_place.setdefault(place, set()).update(_listed(statement["Action"]))
        rights[name] = {place: " ".join(sorted(actions)) for place, actions in by_place.items()}
    assert rights == _RIGHTS
    assert not [right for role in rights.values() for right in role.values() if "*" in right]


def test_roles_are_passed_to_sagemaker_alone() -> None:
    (statement,) = _statements(_template()["Resources"]["SagemakerPassesRoles"])
    assert statement["Condition"] == {
        "StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}
    }


def test_scaling_is_that_of_the_own_endpoints() -> None:
    statements = {s["Sid"]: s for s in _statements(_template()["Resources"]["SagemakerDeploys"])}
    assert statements["Scaling"]["Condition"] == {
        "StringEquals": {"application-autoscaling:service-namespace": "sagemaker"}
    }
    alarms = statements["ScalingAlarms"]["Resource"]
    assert alarms.endswith(":alarm:TargetTracking-endpoint/${ProjectName}-*")


def test_the_bucket_is_private_encrypted_and_versioned() -> None:
    resources = _template()["Resources"]
    bucket = resources["ArtifactBucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert resources["ArtifactBucket"]["DeletionPolicy"] == "Retain"
    (denied,) = _statements(resources["ArtifactBucketPolicy"])
    assert denied["Effect"] == "Deny"
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_every_repository_is_scanned() -> None:
    kinds = [r for r in _template()["Resources"].values() if r["Type"] == "AWS::ECR::Repository"]
    assert len(kinds) == 2
    for repository in kinds:
        assert repository["Properties"]["ImageScanningConfiguration"] == {"ScanOnPush": True}


def test_outputs_and_example_give_every_variable_name_the_stack_file() -> None:
    example = (STACKS_DIR / "aws.env.example").read_text()
    lines = [line for line in example.splitlines() if line.startswith("export ")]
    names = {line.removeprefix("export ").split("=")[0] for line in lines}
    assert all("#" in line for line in lines), "a word each"
    for stack in ("aws", "aws-step-operator"):
        spec = read_spec(stack, environment=dict.fromkeys(names, "x"))
        assert spec.components["artifact_store"].configuration == {"path": "s3://x/zenml"}
    outputs = {variable_name(output) for output in _template()["Outputs"]}
    own = {"CV_FACTORY_MLFLOW_USERNAME", "CV_FACTORY_MLFLOW_PASSWORD", "CV_FACTORY_SUBNETS",
           "CV_FACTORY_SECURITY_GROUPS", "CV_FACTORY_KMS_KEY_ARN", "CV_FACTORY_SPOT"}  # fmt: skip
    assert names - own <= outputs


@pytest.mark.engines
def test_the_template_is_deployed_and_deleted(cloud: "Cloud") -> None:
    cloudformation = cloud.aws("cloudformation")
    cloudformation.create_stack(
        StackName="other",
        TemplateBody=Path(_FILE).read_text(),
        Parameters=[{"ParameterKey": "ProjectName", "ParameterValue": "other"},
                    {"ParameterKey": "MlflowUri", "ParameterValue": "https://mlflow.example"}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )  # fmt: skip
    (stack,) = cloudformation.describe_stacks(StackName="other")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert outputs["MlflowUri"] == "https://mlflow.example"
    assert "ZenmlServerUri" not in outputs
    ecr, iam, codebuild = cloud.aws("ecr"), cloud.aws("iam"), cloud.aws("codebuild")
    assert ecr.describe_repositories(repositoryNames=[outputs["EcrRepository"]])["repositories"]
    assert outputs["CodebuildProject"] in codebuild.list_projects()["projects"]
    cloudformation.delete_stack(StackName="other")
    assert not [r for r in iam.list_roles()["Roles"] if r["RoleName"].startswith("other-")]
    assert outputs["CodebuildProject"] not in codebuild.list_projects()["projects"]
    repositories = {r["repositoryName"] for r in ecr.describe_repositories()["repositories"]}
    assert outputs["EcrRepository"] not in repositories
