"""Resources of an endpoint on SageMaker: models, configurations, the endpoint itself.

Creates, changes and deletes them, and waits for SageMaker. Which variants there should be is
decided elsewhere.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cv_factory.deployment.sagemaker import names
from cv_factory.deployment.sagemaker.aws_calls import AwsClients, translate_aws_errors
from cv_factory.deployment.sagemaker.aws_errors import AwsError
from cv_factory.deployment.sagemaker.bento_store import BentoStore
from cv_factory.deployment.sagemaker.endpoint_state import IN_SERVICE, EndpointState, load_state
from cv_factory.deployment.sagemaker.logs import EndpointLogs
from cv_factory.deployment.sagemaker.settings import EndpointSettings
from cv_factory.errors import CVFactoryError
from cv_factory.processes.polling import poll_until

_PREFIX = "endpoints"
_STAGE_TAG = "cv-factory:stage"
_LOG_TAIL_LINES = 20


class EndpointError(CVFactoryError):
    """SageMaker did not change an endpoint as requested."""


@dataclass(frozen=True)
class EndpointResources:
    """The resources of one endpoint.

    Attributes:
        name: Of the endpoint.
        settings: Of new variants and of the endpoint.
        aws: The clients.
    """

    name: str
    settings: EndpointSettings
    aws: AwsClients

    @cached_property
    def bentos(self) -> BentoStore:
        """The Bentos of the variants."""
        return BentoStore(self.aws, self.settings.bucket, f"{_PREFIX}/{self.name}/")

    @property
    def deletion_hint(self) -> str:
        """Command that deletes the endpoint where this program cannot, with its reason."""
        options = f"--region {self.settings.region} --endpoint-name {self.name}"
        return (
            f"The endpoint {self.name} costs as long as it is there. To delete it with all that "
            f"it serves: aws sagemaker wait endpoint-in-service {options}; "
            f"aws sagemaker delete-endpoint {options}"
        )

    def create_model(self, variant: str, image: str) -> None:
        """Create the SageMaker model of a variant, whose Bento is uploaded."""
        source = {
            "S3Uri": self.bentos.uri(variant),
            "S3DataType": "S3Prefix",
            "CompressionType": "None",
        }
        with translate_aws_errors(f"The model of variant {variant} cannot be created"):
            self._sagemaker.create_model(
                ModelName=names.sagemaker_model(self.name, variant),
                PrimaryContainer={"Image": image, "ModelDataSource": {"S3DataSource": source}},
                **self.settings.model_arguments,
            )

    def tag_model(self, variant: str, stage: str) -> None:
        """Tag the SageMaker model of a variant with the stage of its version."""
        with translate_aws_errors(f"The model of variant {variant} cannot be tagged"):
            model = names.sagemaker_model(self.name, variant)
            arn = self._sagemaker.describe_model(ModelName=model)["ModelArn"]
            tags = [{"Key": _STAGE_TAG, "Value": stage}]
            self._sagemaker.add_tags(ResourceArn=arn, Tags=tags)

    def new_variant_spec(self, variant: str, weight: float) -> dict[str, Any]:
        """Return a new variant as a configuration has it."""
        settings = self.settings
        least = settings.autoscaling.min_instances if settings.autoscaling else 1
        return {
            "VariantName": variant,
            "ModelName": names.sagemaker_model(self.name, variant),
            "InstanceType": settings.instance_type,
            "InitialInstanceCount": max(settings.instances, least),
            "InitialVariantWeight": weight,
            "ContainerStartupHealthCheckTimeoutInSeconds": settings.container_timeout,
        }

    def variant_specs(
        self, state: EndpointState, variants: Collection[str]
    ) -> list[dict[str, Any]]:
        """Return serving variants as a configuration has them, with their present weights."""
        with translate_aws_errors(f"The configuration of endpoint {self.name} cannot be read"):
            config = self._sagemaker.describe_endpoint_config(EndpointConfigName=state.config)
        specs = {spec["VariantName"]: spec for spec in config["ProductionVariants"]}
        return [
            {
                **specs[variant.name],
                "InitialVariantWeight": variant.weight,
                "InitialInstanceCount": variant.instances,
            }
            for variant in state.variants
            if variant.name in variants
        ]

    def set_variants(
        self, state: EndpointState | None, specs: list[dict[str, Any]], new: str = ""
    ) -> None:
        """Create the endpoint with these variants, or update it to them while it serves.

        Args:
            state: Of the endpoint; None where there is none yet.
            specs: The variants.
            new: Name of the variant whose log tells why the change failed.

        Raises:
            AwsError: SageMaker refuses at once.
            EndpointError: It tried and failed, or is not done in time.
        """
        config = names.new_config_name(self.name)
        verb = "create" if state is None else "update"
        with translate_aws_errors(f"SageMaker does not {verb} the endpoint {self.name}"):
            self._sagemaker.create_endpoint_config(
                EndpointConfigName=config,
                ProductionVariants=specs,
                **self.settings.config_arguments,
            )
            request = {"EndpointName": self.name, "EndpointConfigName": config}
            if state is None:
                self._sagemaker.create_endpoint(**request, Tags=self.settings.aws_tags)
            else:
                self._sagemaker.update_endpoint(**request)
        settled = self.await_settled()
        if settled is None or (settled.status, settled.config) != (IN_SERVICE, config):
            raise self.failure(settled, f"could not {verb}", new)

    def request_weights(self, state: EndpointState, weights: dict[str, float]) -> None:
        """Ask SageMaker for these weights; the others become 0."""
        desired = [
            {
                "VariantName": variant.name,
                "DesiredWeight": weights.get(variant.name, 0.0),
                # Where it is left out, SageMaker takes the configuration's.
                "DesiredInstanceCount": variant.instances,
            }
            for variant in state.variants
        ]
        with translate_aws_errors(f"The weights of endpoint {self.name} cannot be changed"):
            self._sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=self.name, DesiredWeightsAndCapacities=desired
            )

    def delete_endpoint(self) -> None:
        """Delete the endpoint and wait until it is gone.

        Raises:
            CVFactoryError: SageMaker does not delete it.
        """
        with translate_aws_errors(f"The endpoint {self.name} cannot be deleted"):
            self._sagemaker.delete_endpoint(EndpointName=self.name)
        state = self.await_settled()
        if state is not None:
            raise self.failure(state, "did not delete")

    def delete_unused(self, keep: Collection[str]) -> None:
        """Delete every configuration, model and Bento that serves nothing.

        Args:
            keep: Names of variants whose resources stay even if they do not serve.
        """
        state = load_state(self.aws, self.name)
        variants = {*keep, *(state.names if state else ())}
        with translate_aws_errors(f"Unused resources of endpoint {self.name} cannot be deleted"):
            for config in self._list("list_endpoint_configs", "EndpointConfig", "-c"):
                is_unused = not state or config != state.config
                if names.is_endpoint_config(self.name, config) and is_unused:
                    self._sagemaker.delete_endpoint_config(EndpointConfigName=config)
            for model in self._list("list_models", "Model", "-v"):
                variant = names.parse_variant(self.name, model)
                if variant is not None and variant not in variants:
                    self._sagemaker.delete_model(ModelName=model)
        self.bentos.prune(variants)

    def await_settled(self) -> EndpointState | None:
        """Wait until SageMaker no longer changes the endpoint, and return its state.

        Raises:
            EndpointError: It takes longer than ``start_timeout``.
        """
        state: EndpointState | None = None

        def is_settled() -> bool:
            nonlocal state
            state = load_state(self.aws, self.name)
            return state is None or not state.is_changing

        timeout = self.settings.start_timeout
        if not poll_until(is_settled, timeout, self.settings.polling_interval):
            status = state.status if state is not None else "gone"
            raise EndpointError(
                f"The endpoint {self.name} is still {status} after {timeout:g} s, and SageMaker "
                "goes on. Try again later, or raise start_timeout of the model deployer."
            )
        return state

    def failure(self, state: EndpointState | None, what: str, variant: str = "") -> EndpointError:
        """Return the error of a change that failed.

        Args:
            state: Of the endpoint now.
            what: What SageMaker did not do, such as ``could not update``.
            variant: Whose log is quoted.
        """
        status = state.status if state else "not there any more"
        reason = state.reason if state and state.reason else "it gave no reason"
        served = "What was served before still is." if state and state.status == IN_SERVICE else ""
        first = f"SageMaker {what} the endpoint {self.name}: {reason} (it is {status}). {served}"
        return EndpointError("\n".join([first.strip(), *self._log_tail(variant)]))

    def _log_tail(self, variant: str) -> list[str]:
        """Return the last lines of a variant's log, or why they cannot be read."""
        logs = EndpointLogs(self.aws, self.name)
        try:
            lines = logs.lines(variant, _LOG_TAIL_LINES) if variant else []
        except AwsError as error:
            lines = [str(error)]
        return ["The end of its log:", *(f"  {line}" for line in lines)] if lines else []

    def _list(self, operation: str, kind: str, infix: str) -> list[str]:
        pages = self._sagemaker.get_paginator(operation).paginate(NameContains=self.name + infix)
        return [item[f"{kind}Name"] for page in pages for item in page[f"{kind}s"]]

    @property
    def _sagemaker(self) -> Any:
        return self.aws.client("sagemaker")
