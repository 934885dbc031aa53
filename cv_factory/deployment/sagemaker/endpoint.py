"""A model's endpoint on SageMaker: its variants are the versions that are served.

A version is put up as a variant beside the others, without requests, is proven there, and is then
given its weight. SageMaker alone knows what serves: nothing of it is kept here. Whatever belongs to
an endpoint and serves nothing is deleted with every change, also what a killed one has left.
"""

import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cv_factory.deployment.sagemaker import names
from cv_factory.deployment.sagemaker.aws_calls import Aws, is_missing, told
from cv_factory.deployment.sagemaker.aws_errors import AccessError
from cv_factory.deployment.sagemaker.bento_store import BentoStore
from cv_factory.deployment.sagemaker.logs import EndpointLogs
from cv_factory.deployment.sagemaker.scaling import Scaling
from cv_factory.deployment.sagemaker.settings import EndpointSettings
from cv_factory.deployment.sagemaker.transport import EndpointTransport, endpoint_url
from cv_factory.deployment.verify import Proof, prove
from cv_factory.errors import ConfigError, CVFactoryError
from cv_factory.serving.bundle import Bundle

_CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_SERVING, _FAILED = "InService", "Failed"
_PREFIX = "endpoints"
_STAGE_TAG = "cv-factory:stage"
_LINES_SHOWN = 20
_ANSWER_SECONDS = 60.0


class EndpointError(CVFactoryError):
    """SageMaker did not do to an endpoint what it was asked to."""


@dataclass(frozen=True)
class Variant:
    """A variant as it serves now."""

    name: str
    weight: float
    instances: int


@dataclass(frozen=True)
class State:
    """What SageMaker says of an endpoint.

    Attributes:
        status: Its word, such as ``InService``.
        config: Name of the configuration in force.
        reason: Why the last change failed; empty where none did.
        variants: Those that serve.
    """

    status: str
    config: str
    reason: str
    variants: tuple[Variant, ...]

    @property
    def names(self) -> set[str]:
        """Names of the variants."""
        return {variant.name for variant in self.variants}

    @property
    def shares(self) -> dict[str, float]:
        """The share of the requests that each variant is given, without those of none."""
        weights = {variant.name: variant.weight for variant in self.variants if variant.weight}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}


def state_of(aws: Aws, endpoint: str) -> State | None:
    """Return what SageMaker says of an endpoint; None where there is none of that name.

    Raises:
        AccessError: It refuses to say.
    """
    from botocore.exceptions import ClientError

    with told(f"The endpoint {endpoint} cannot be looked at"):
        try:
            found = aws.client("sagemaker").describe_endpoint(EndpointName=endpoint)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
    variants = tuple(
        Variant(
            variant["VariantName"],
            # Not DesiredWeight: that is what was asked for, whatever became of it.
            float(variant.get("CurrentWeight", 0.0)),
            int(variant.get("DesiredInstanceCount") or variant.get("CurrentInstanceCount") or 1),
        )
        for variant in found.get("ProductionVariants", [])
    )
    return State(
        status=found["EndpointStatus"],
        config=found["EndpointConfigName"],
        reason=found.get("FailureReason", ""),
        variants=variants,
    )


@dataclass(frozen=True)
class SagemakerEndpoint:
    """The endpoint of one model, there or not.

    Attributes:
        name: Its name.
        settings: Of new variants and of the endpoint.
        aws: The clients.
    """

    name: str
    settings: EndpointSettings
    aws: Aws

    @classmethod
    def of_model(cls, model_name: str, settings: EndpointSettings) -> "SagemakerEndpoint":
        """Return the endpoint of a model."""
        name = names.endpoint_name(settings.name_prefix, model_name)
        return cls(name, settings, Aws(settings.region))

    def state(self) -> State | None:
        """Return what SageMaker says; see ``state_of``."""
        return state_of(self.aws, self.name)

    def shares(self) -> dict[str, float]:
        """Return the share of the requests that each variant is given, without those of none."""
        state = self.state()
        return state.shares if state is not None else {}

    def put_up(self, variant: str, bundle: Bundle, image: str, known: Collection[str]) -> Proof:
        """Add a variant that serves a bundle, and prove it; it is given no requests yet.

        The very first variant is the exception: SageMaker has no endpoint whose weights are all 0.

        Args:
            variant: Its name; one that serves already is only proven.
            bundle: What it serves.
            image: What it runs in.
            known: Names of the other variants that shall stay, as do those that have requests.

        Raises:
            CVFactoryError: It did not start or answers wrongly; nothing of it is left, and what
                was served before still is.
        """
        _require_servable(bundle)
        before = self._changeable()
        if before is not None and variant in before.names:
            proof = self.prove(bundle, variant)
            # Whoever put it up may have been killed before that.
            self._scaling.begin(variant)
            return proof
        self._tidy_up(set(known))
        kept = self._staying(before, known) if before is not None else []
        # Otherwise an unproven version would be given requests beside those that serve.
        weight = 0.0 if any(other["InitialVariantWeight"] for other in kept) else 1.0
        with self._taken_back_on_failure(variant, known):
            self._store.upload(variant, bundle)
            self._create_model(variant, image)
            self._change(before, [*kept, self._new_variant(variant, weight)], variant)
            proof = self.prove(bundle, variant)
            self._scaling.begin(variant)
        self._tidy_up({*known, variant})
        return proof

    def route(self, weights: Mapping[str, float]) -> None:
        """Give requests to these variants in these shares, and to no others.

        Raises:
            CVFactoryError: One of them does not serve, or SageMaker does not change the weights.
        """
        state = self._changeable()
        if state is None or (weights.keys() - state.names):
            missing = ", ".join(sorted(weights.keys() - (state.names if state else set())))
            raise EndpointError(f"The endpoint {self.name} has no variant {missing}: deploy again.")
        desired = [
            {
                "VariantName": variant.name,
                "DesiredWeight": weights.get(variant.name, 0.0),
                # Where it is not said, SageMaker takes the configuration's.
                "DesiredInstanceCount": variant.instances,
            }
            for variant in state.variants
        ]
        with told(f"The weights of endpoint {self.name} cannot be changed"):
            self._sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=self.name, DesiredWeightsAndCapacities=desired
            )
        deadline = time.monotonic() + self.settings.start_timeout
        while not _is_weighted(settled := self._settled(), weights):
            is_serving = settled is not None and settled.status == _SERVING
            if not is_serving or time.monotonic() > deadline:
                raise self._failure(settled, "did not change the weights of")
            time.sleep(self.settings.polling_interval)

    def prove(self, bundle: Bundle, variant: str | None = None) -> Proof:
        """Send the golden samples of a bundle to the endpoint, as any client would.

        Args:
            bundle: What it should serve.
            variant: That is to answer; by weight where none is named.

        Raises:
            ProofError: An answer is missing, wrong, or of another version.
            AccessError: SageMaker does not hand the requests on.
        """
        transport = EndpointTransport(self.aws, self.name, variant)
        url = endpoint_url(self.name)
        return prove(url, bundle, timeout=_ANSWER_SECONDS, transport=transport)

    def remove(self, variant: str) -> None:
        """Take a variant away with all that belongs to it; the endpoint goes with the last one.

        Raises:
            CVFactoryError: It has all requests and is not the last one, or SageMaker does not
                change the endpoint.
        """
        state = self._settled()
        if state is not None:
            self._require_requests_elsewhere(state, variant)
        self._scaling.end(variant)
        if state is not None and variant in state.names:
            self._drop(state, variant)
        self._tidy_up(state.names - {variant} if state else set())

    def set_stage(self, variant: str, stage: str) -> None:
        """Let a variant's SageMaker model say which stage its version is in.

        Raises:
            AccessError: AWS refuses it.
        """
        with told(f"The model of variant {variant} cannot be tagged"):
            model = names.sagemaker_model(self.name, variant)
            arn = self._sagemaker.describe_model(ModelName=model)["ModelArn"]
            tags = [{"Key": _STAGE_TAG, "Value": stage}]
            self._sagemaker.add_tags(ResourceArn=arn, Tags=tags)

    def bundle_of(self, variant: str) -> Bundle:
        """Return what a variant was put up with.

        Raises:
            CVFactoryError: It is damaged, or cannot be read.
        """
        return self._store.bundle(variant)

    @cached_property
    def logs(self) -> EndpointLogs:
        """What its containers print."""
        return EndpointLogs(self.aws, self.name)

    @cached_property
    def _store(self) -> BentoStore:
        return BentoStore(self.aws, self.settings.bucket, f"{_PREFIX}/{self.name}/")

    @cached_property
    def _scaling(self) -> Scaling:
        return Scaling(self.aws, self.name, self.settings.autoscaling)

    @property
    def _sagemaker(self) -> Any:
        return self.aws.client("sagemaker")

    def _create_model(self, variant: str, image: str) -> None:
        source = {
            "S3Uri": self._store.uri(variant),
            "S3DataType": "S3Prefix",
            "CompressionType": "None",
        }
        with told(f"SageMaker takes no model for variant {variant}"):
            self._sagemaker.create_model(
                ModelName=names.sagemaker_model(self.name, variant),
                PrimaryContainer={"Image": image, "ModelDataSource": {"S3DataSource": source}},
                **self.settings.model_arguments,
            )

    def _new_variant(self, variant: str, weight: float) -> dict[str, Any]:
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

    def _staying(self, state: State, known: Collection[str]) -> list[dict[str, Any]]:
        """Return the variants that stay beside a new one, and scale the others no more."""
        # Whoever put up what has requests need not have told this caller's ZenML.
        staying = {*known, *state.shares}
        for leaving in sorted(state.names - staying):
            self._scaling.end(leaving)
        return self._kept(state, staying)

    def _kept(self, state: State, known: Collection[str]) -> list[dict[str, Any]]:
        """Return variants that serve as a new configuration has them: weighted, scaled as now."""
        with told(f"The configuration of endpoint {self.name} cannot be read"):
            found = self._sagemaker.describe_endpoint_config(EndpointConfigName=state.config)
        configured = {v["VariantName"]: v for v in found["ProductionVariants"]}
        return [
            {
                **configured[now.name],
                "InitialVariantWeight": now.weight,
                "InitialInstanceCount": now.instances,
            }
            for now in state.variants
            if now.name in known
        ]

    def _change(self, state: State | None, variants: list[dict[str, Any]], new: str = "") -> None:
        """Make an endpoint of these variants, or make it of these; SageMaker keeps it serving.

        Raises:
            AccessError: SageMaker refuses at once.
            EndpointError: It tried and failed, or is not done in time.
        """
        config = names.new_config_name(self.name)
        verb = "create" if state is None else "update"
        with told(f"SageMaker does not {verb} the endpoint {self.name}"):
            self._sagemaker.create_endpoint_config(
                EndpointConfigName=config,
                ProductionVariants=variants,
                **self.settings.config_arguments,
            )
            asked = {"EndpointName": self.name, "EndpointConfigName": config}
            if state is None:
                self._sagemaker.create_endpoint(**asked, Tags=self.settings.aws_tags)
            else:
                self._sagemaker.update_endpoint(**asked)
        settled = self._settled()
        if settled is None or (settled.status, settled.config) != (_SERVING, config):
            raise self._failure(settled, f"could not {verb}", new)

    def _drop(self, state: State, variant: str) -> None:
        """Take a variant away, and with the last one the endpoint."""
        kept = self._kept(state, state.names - {variant})
        if kept:
            self._change(state, kept)
        else:
            self._delete()

    def _require_requests_elsewhere(self, state: State, variant: str) -> None:
        """Refuse to take the only variant with requests away from others: SageMaker would, too."""
        others = ", ".join(sorted(state.names - {variant}))
        if others and state.shares.keys() == {variant}:
            raise EndpointError(
                f"The variant {variant} has all requests of endpoint {self.name}, beside {others}: "
                "give requests to another one first (deploy its version: python run.py --pipeline "
                f"deployment), or delete the others first. {self._end_of_costs}"
            )

    def _delete(self) -> None:
        with told(f"The endpoint {self.name} cannot be deleted"):
            self._sagemaker.delete_endpoint(EndpointName=self.name)
        state = self._settled()
        if state is not None:
            raise self._failure(state, "did not delete")

    @contextmanager
    def _taken_back_on_failure(self, variant: str, known: Collection[str]) -> Iterator[None]:
        """Undo what the block did to put a variant up if it fails in any way."""
        try:
            yield
        except BaseException as failure:
            try:
                self._take_back(variant, known)
            # To be interrupted again is likely: SageMaker takes minutes.
            except (CVFactoryError, KeyboardInterrupt) as error:
                raise EndpointError(
                    f"{_said(failure)}\nNor could it be undone: {_said(error)}\n"
                    f"{self._end_of_costs}"
                ) from failure
            raise

    def _take_back(self, variant: str, known: Collection[str]) -> None:
        """Undo what was done to put a variant up, as soon as SageMaker allows it."""
        self._scaling.end(variant)
        state = self._settled()
        if state is not None and (state.status == _FAILED or variant in state.names):
            self._drop(state, variant)
        self._tidy_up(set(known))

    def _tidy_up(self, variants: set[str]) -> None:
        """Delete every configuration, model and Bento of this endpoint that nothing needs.

        Args:
            variants: To be kept even if they do not serve.
        """
        state = self.state()
        kept = variants | (state.names if state else set())
        client = self._sagemaker
        with told(f"What endpoint {self.name} has left cannot be deleted"):
            for config in self._listed("list_endpoint_configs", "EndpointConfig", "-c"):
                if names.is_config_of(self.name, config) and (not state or config != state.config):
                    client.delete_endpoint_config(EndpointConfigName=config)
            for model in self._listed("list_models", "Model", "-v"):
                variant = names.variant_of(self.name, model)
                if variant is not None and variant not in kept:
                    client.delete_model(ModelName=model)
        self._store.keep_only(kept)

    def _listed(self, operation: str, kind: str, infix: str) -> list[str]:
        pages = self._sagemaker.get_paginator(operation).paginate(NameContains=self.name + infix)
        return [found[f"{kind}Name"] for page in pages for found in page[f"{kind}s"]]

    def _changeable(self) -> State | None:
        """Return the endpoint when SageMaker takes changes; None where there is none.

        Raises:
            EndpointError: It is in a state that can only be deleted.
        """
        state = self._settled()
        if state is not None and state.status == _FAILED:
            # It never served: SageMaker keeps a serving one when an update fails.
            self._delete()
            return None
        if state is not None and state.status != _SERVING:
            raise EndpointError(
                f"The endpoint {self.name} cannot be changed: it is {state.status}"
                f"{f' ({state.reason})' if state.reason else ''}. Delete what is served (zenml "
                "model-deployer models delete UUID), and deploy again."
            )
        return state

    def _settled(self) -> State | None:
        """Wait until SageMaker does nothing to the endpoint any more.

        Raises:
            EndpointError: It takes longer than it may.
        """
        deadline = time.monotonic() + self.settings.start_timeout
        while (state := self.state()) is not None and state.status in _CHANGING:
            if time.monotonic() > deadline:
                raise EndpointError(
                    f"The endpoint {self.name} is still {state.status} after "
                    f"{self.settings.start_timeout:g} s, and SageMaker goes on. Try again later, "
                    "or raise start_timeout of the model deployer."
                )
            time.sleep(self.settings.polling_interval)
        return state

    @property
    def _end_of_costs(self) -> str:
        """How a user ends all of it where this program cannot."""
        place = f"--region {self.settings.region} --endpoint-name {self.name}"
        return (
            f"The endpoint {self.name} costs as long as it is there. To delete it with all that "
            f"it serves: aws sagemaker wait endpoint-in-service {place}; "
            f"aws sagemaker delete-endpoint {place}"
        )

    def _failure(self, state: State | None, what: str, variant: str = "") -> EndpointError:
        status = state.status if state else "not there any more"
        reason = state.reason if state and state.reason else "it gave no reason"
        served = "What was served before still is." if state and state.status == _SERVING else ""
        first = f"SageMaker {what} the endpoint {self.name}: {reason} (it is {status}). {served}"
        return EndpointError("\n".join([first.strip(), *self._log_end(variant)]))

    def _log_end(self, variant: str) -> list[str]:
        """Return the last lines of a variant's log, or why they cannot be had."""
        try:
            lines = self.logs.lines(variant, _LINES_SHOWN) if variant else []
        except AccessError as error:
            lines = [str(error)]
        return ["The end of its log:", *(f"  {line}" for line in lines)] if lines else []


def _is_weighted(state: State | None, weights: Mapping[str, float]) -> bool:
    """Whether requests go to these variants by these weights, and to no others."""
    served = {v.name: v.weight for v in state.variants} if state is not None else {}
    return weights.keys() <= served.keys() and all(
        # SageMaker keeps weights in single precision.
        math.isclose(weight, weights.get(name, 0.0), rel_tol=1e-5)
        for name, weight in served.items()
    )


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _require_servable(bundle: Bundle) -> None:
    """Refuse settings of a service that SageMaker would silently make ineffective."""
    if bundle.serving.access.jwt is not None:
        raise ConfigError(
            "serving.access.jwt: SageMaker hands no token on to a container; IAM says who may "
            "invoke the endpoint. Leave it out for this stack."
        )
    if bundle.serving.log.predictions is not None:
        raise ConfigError(
            "serving.log.predictions: a container's files end with it. Leave it out for this "
            "stack, and set data_capture of its model deployer."
        )
