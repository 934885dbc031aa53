"""Application autoscaling of a variant's instances by its load."""

from dataclasses import dataclass
from typing import Any

from cv_factory.deployment.sagemaker.aws_calls import AwsClients, translate_aws_errors
from cv_factory.deployment.sagemaker.settings import Autoscaling

_METRIC = "SageMakerVariantInvocationsPerInstance"


@dataclass(frozen=True)
class VariantScaling:
    """The scaling of an endpoint's variants.

    Attributes:
        aws: The clients.
        endpoint: Name of the endpoint.
        policy: None where the number of instances does not change.
    """

    aws: AwsClients
    endpoint: str
    policy: Autoscaling | None

    def start(self, variant: str) -> None:
        """Scale a variant by the policy, where there is one."""
        if self.policy is None:
            return
        client = self.aws.client("application-autoscaling")
        with translate_aws_errors(f"The variant {variant} cannot be scaled"):
            client.register_scalable_target(
                **self._target(variant),
                MinCapacity=self.policy.min_instances,
                MaxCapacity=self.policy.max_instances,
            )
            client.put_scaling_policy(
                **self._target(variant),
                PolicyName="invocations",
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration={
                    "TargetValue": self.policy.invocations_per_minute,
                    "PredefinedMetricSpecification": {"PredefinedMetricType": _METRIC},
                    "ScaleInCooldown": self.policy.scale_in_seconds,
                    "ScaleOutCooldown": self.policy.scale_out_seconds,
                },
            )

    def stop(self, variant: str) -> None:
        """Stop scaling a variant: SageMaker removes none that is scaled."""
        client = self.aws.client("application-autoscaling")
        target = self._target(variant)
        with translate_aws_errors(f"The scaling of variant {variant} cannot be stopped"):
            response = client.describe_scalable_targets(
                ServiceNamespace=target["ServiceNamespace"], ResourceIds=[target["ResourceId"]]
            )
            if response["ScalableTargets"]:
                client.deregister_scalable_target(**target)

    def _target(self, variant: str) -> dict[str, Any]:
        return {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{self.endpoint}/variant/{variant}",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }
