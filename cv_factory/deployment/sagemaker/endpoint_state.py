"""State of an endpoint as SageMaker reports it: nothing of it is kept here."""

from dataclasses import dataclass

from cv_factory.deployment.sagemaker.aws_calls import AwsClients, is_missing, translate_aws_errors

IN_SERVICE, FAILED = "InService", "Failed"
_CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


@dataclass(frozen=True)
class Variant:
    """A variant as it serves now."""

    name: str
    weight: float
    instances: int


@dataclass(frozen=True)
class EndpointState:
    """State of an endpoint.

    Attributes:
        status: SageMaker's word, such as ``InService``.
        config: Name of the configuration in force.
        reason: Why the last change failed; empty where none did.
        variants: Those that serve.
    """

    status: str
    config: str
    reason: str
    variants: tuple[Variant, ...]

    @property
    def is_changing(self) -> bool:
        """Whether SageMaker is changing it, and accepts no other change."""
        return self.status in _CHANGING

    @property
    def names(self) -> set[str]:
        """Names of the variants."""
        return {variant.name for variant in self.variants}

    @property
    def weights(self) -> dict[str, float]:
        """The fraction of the requests that each variant is given, without those of none."""
        weights = {variant.name: variant.weight for variant in self.variants if variant.weight}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}


def load_state(aws: AwsClients, endpoint: str) -> EndpointState | None:
    """Return the state of an endpoint; None where there is none of that name."""
    from botocore.exceptions import ClientError

    with translate_aws_errors(f"The state of endpoint {endpoint} cannot be read"):
        try:
            description = aws.client("sagemaker").describe_endpoint(EndpointName=endpoint)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
    variants = tuple(
        Variant(
            variant["VariantName"],
            # Not DesiredWeight: that is what was requested, whether or not it was done.
            float(variant.get("CurrentWeight", 0.0)),
            int(variant.get("DesiredInstanceCount") or variant.get("CurrentInstanceCount") or 1),
        )
        for variant in description.get("ProductionVariants", [])
    )
    return EndpointState(
        status=description["EndpointStatus"],
        config=description["EndpointConfigName"],
        reason=description.get("FailureReason", ""),
        variants=variants,
    )
