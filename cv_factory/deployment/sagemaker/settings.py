"""Settings of a stack's endpoints: instances, network, key, scaling, capture of data."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")]


class Autoscaling(BaseModel):
    """Autoscaling of a variant's instances by its invocations.

    Attributes:
        min_instances: Lower limit.
        max_instances: Upper limit.
        invocations_per_minute: Target for one instance.
        scale_in_seconds: Pause after instances were removed.
        scale_out_seconds: Pause after instances were added.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_instances: int = Field(1, ge=1, le=1000)
    max_instances: int = Field(ge=1, le=1000)
    invocations_per_minute: float = Field(gt=0)
    scale_in_seconds: int = Field(300, ge=0, le=86_400)
    scale_out_seconds: int = Field(60, ge=0, le=86_400)

    @model_validator(mode="after")
    def _check_order(self) -> "Autoscaling":
        if self.max_instances < self.min_instances:
            raise ValueError("max_instances: must not be less than min_instances")
        return self


class DataCapture(BaseModel):
    """Capture of requests and responses by SageMaker, in the bucket.

    Attributes:
        percentage: Of the requests.
        prefix: In the bucket; the endpoint's name, the variant's and the hour follow.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    percentage: int = Field(ge=1, le=100)
    prefix: str = Field("captured", pattern=r"^[\w-]+(/[\w-]+)*$")


class EndpointSettings(BaseModel):
    """Settings of the endpoints of a stack.

    Attributes:
        role: ARN of the role that the containers have.
        region: Where the endpoints are.
        bucket: Holds the Bentos, and the captured data.
        repository: ECR repository of the service's image, with its registry, without a tag.
        image: A built image with its tag, used instead of building one.
        name_prefix: Prefix of the names of all resources.
        instance_type: Of every new variant.
        instances: Of every new variant.
        local_disk: Whether the instances have local disks, which take no KMS key.
        subnets: Subnets of the VPC that the containers are in, with commas between them.
        security_groups: Their security groups, likewise; needed with subnets.
        isolated: Whether containers reach no network, not even that of the VPC.
        kms_key: Key of the instances' disks and of captured data; AWS's own where it is empty.
        tags: Of all resources, for the bill.
        autoscaling: None keeps the number of instances.
        data_capture: None captures nothing.
        start_timeout: Seconds in which SageMaker must create or change an endpoint.
        container_timeout: Seconds in which a container must answer its first health check.
        polling_interval: Seconds between two polls of an endpoint's state.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str = Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    bucket: str = Field(min_length=3, max_length=63)
    repository: str = Field(min_length=1)
    image: str | None = None
    name_prefix: str = Field("cv-factory", pattern=r"^[a-zA-Z0-9](-?[a-zA-Z0-9]){0,30}$")
    instance_type: InstanceType = "ml.m5.large"
    instances: int = Field(1, ge=1, le=1000)
    local_disk: bool = False
    # Not lists: ZenML takes a string for a list to be JSON, and a variable is a string.
    subnets: str = ""
    security_groups: str = ""
    isolated: bool = True
    kms_key: str = ""
    tags: dict[str, str] = {}
    autoscaling: Autoscaling | None = None
    data_capture: DataCapture | None = None
    start_timeout: float = Field(1800.0, gt=0.0)
    container_timeout: int = Field(300, ge=60, le=3600)
    polling_interval: float = Field(15.0, gt=0.0)

    @model_validator(mode="after")
    def _check_network(self) -> "EndpointSettings":
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups: give both or neither")
        return self

    @property
    def aws_tags(self) -> list[dict[str, str]]:
        """The tags as AWS takes them."""
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Arguments of every SageMaker model beside its name and container."""
        arguments: dict[str, Any] = {
            "ExecutionRoleArn": self.role,
            "EnableNetworkIsolation": self.isolated,
            "Tags": self.aws_tags,
        }
        if self.subnets:
            arguments["VpcConfig"] = {
                "Subnets": split_list(self.subnets),
                "SecurityGroupIds": split_list(self.security_groups),
            }
        return arguments

    @property
    def config_arguments(self) -> dict[str, Any]:
        """Arguments of every endpoint configuration beside its name and variants."""
        arguments: dict[str, Any] = {"Tags": self.aws_tags}
        if self.kms_key and not self.local_disk:
            arguments["KmsKeyId"] = self.kms_key
        if self.data_capture is not None:
            arguments["DataCaptureConfig"] = self._capture(self.data_capture)
        return arguments

    def _capture(self, capture: DataCapture) -> dict[str, Any]:
        key = {"KmsKeyId": self.kms_key} if self.kms_key else {}
        return {
            "EnableCapture": True,
            "InitialSamplingPercentage": capture.percentage,
            "DestinationS3Uri": f"s3://{self.bucket}/{capture.prefix}",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            # Images are kept as base64, answers as the text that they are.
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
            **key,
        }


def split_list(text: str) -> list[str]:
    """Return the parts of a text with commas between them, without blanks and empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]
