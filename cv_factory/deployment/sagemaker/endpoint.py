"""A model's endpoint on SageMaker: its variants are the versions that are served.

A version is deployed as a variant beside the others, without requests, is verified there, and is
then given its weight. SageMaker alone knows what serves: nothing of it is kept here. Resources of
an endpoint that serve nothing are deleted with every change, also what a killed one has left.
"""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from cv_factory.deployment.endpoint import Endpoint
from cv_factory.deployment.sagemaker import names
from cv_factory.deployment.sagemaker.aws_calls import AwsClients
from cv_factory.deployment.sagemaker.endpoint_resources import EndpointError, EndpointResources
from cv_factory.deployment.sagemaker.endpoint_state import FAILED, IN_SERVICE, EndpointState
from cv_factory.deployment.sagemaker.endpoint_view import SagemakerEndpointView
from cv_factory.deployment.sagemaker.scaling import VariantScaling
from cv_factory.deployment.sagemaker.settings import EndpointSettings
from cv_factory.deployment.sagemaker.transport import EndpointTransport
from cv_factory.deployment.traffic import Traffic
from cv_factory.deployment.verify import VerificationResult, verify_golden_samples
from cv_factory.errors import ConfigError, CVFactoryError, StackError
from cv_factory.processes.polling import poll_until
from cv_factory.serving.bundle import Bundle

_REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SagemakerEndpoint(SagemakerEndpointView, Endpoint):
    """The endpoint of one model, whether or not it exists; its services are variants.

    Attributes:
        name: Its name.
        aws: The clients.
        settings: Of new variants and of the endpoint.
        build_image: Returns the image of a new variant where the settings name none.
    """

    settings: EndpointSettings
    build_image: Callable[[], str] | None = None

    @classmethod
    def for_model(
        cls,
        model_name: str,
        settings: EndpointSettings,
        build_image: Callable[[], str] | None = None,
    ) -> "SagemakerEndpoint":
        """Return the endpoint of a model."""
        name = names.endpoint_name(settings.name_prefix, model_name)
        return cls(name, AwsClients(settings.region), settings, build_image)

    def deploy(
        self, name: str, bundle: Bundle, *, keep: Collection[str] = (), is_new: bool = True
    ) -> VerificationResult:
        """Add and verify a variant; one that serves already is only verified.

        It is given no requests yet, but for the very first one: SageMaker has no endpoint whose
        weights are all 0. Other variants that have requests stay like those of ``keep``.
        """
        _require_servable(bundle)
        image = self._image()
        state = self._changeable_state()
        if state is not None and name in state.names:
            result = self._verify_variant(bundle, name)
            # A deployment that was killed before this left it unscaled.
            self._scaling.start(name)
            return result
        others = set(keep) - {name}
        self._resources.delete_unused(others)
        retained = self._retained_variants(state, others) if state is not None else []
        # Otherwise an unverified version would be given requests beside those that serve.
        weight = 0.0 if any(other["InitialVariantWeight"] for other in retained) else 1.0
        with ExitStack() as undo:
            undo.push(partial(self._undo_deployment, name, others))
            self._resources.bentos.upload(name, bundle)
            self._resources.create_model(name, image)
            specs = [*retained, self._resources.new_variant_spec(name, weight)]
            self._resources.set_variants(state, specs, name)
            result = self._verify_variant(bundle, name)
            self._scaling.start(name)
            undo.pop_all()
        self._resources.delete_unused({*others, name})
        return result

    def start(self, name: str, timeout_s: float | None = None) -> VerificationResult:
        """Refuse: a variant that is gone is deployed anew.

        Raises:
            StackError: Always.
        """
        raise StackError(
            "A variant of an endpoint on SageMaker is not started: deploy the version "
            "(python run.py --pipeline deployment)."
        )

    def stop(self, name: str) -> None:
        """Refuse: what is stopped would still be charged for.

        Raises:
            StackError: Always.
        """
        raise StackError(
            f"The variant {name} of an endpoint on SageMaker is not stopped: delete it (zenml "
            "model-deployer models delete UUID)."
        )

    def remove(self, name: str) -> None:
        """Delete a variant with all its resources; the endpoint goes with the last one.

        Raises:
            CVFactoryError: It has all requests and is not the last one, or SageMaker does not
                change the endpoint.
        """
        state = self._resources.await_settled()
        if state is not None:
            self._require_weight_elsewhere(state, name)
        self._scaling.stop(name)
        if state is not None and name in state.names:
            self._drop(state, name)
        self._resources.delete_unused(state.names - {name} if state else set())

    def set_traffic(self, traffic: Traffic) -> None:
        """Distribute the requests among these variants by weight; others are given none."""
        weights, state = traffic.weights, self._changeable_state()
        missing = weights.keys() - (state.names if state else set())
        if state is None or missing:
            listed = ", ".join(sorted(missing))
            raise EndpointError(f"The endpoint {self.name} has no variant {listed}: deploy again.")
        self._resources.request_weights(state, weights)

        def is_done() -> bool:
            settled = self._resources.await_settled()
            if not _has_weights(settled, weights) and (
                settled is None or settled.status != IN_SERVICE
            ):
                raise self._resources.failure(settled, "did not change the weights of")
            return _has_weights(settled, weights)

        settings = self.settings
        if not poll_until(is_done, settings.start_timeout, settings.polling_interval):
            raise self._resources.failure(self.state(), "did not change the weights of")

    def verify(self, name: str, bundle: Bundle) -> VerificationResult:
        """Send the golden samples to the endpoint, as any client would."""
        return self._verify_variant(bundle, None)

    def _verify_variant(self, bundle: Bundle, variant: str | None) -> VerificationResult:
        """Send the golden samples to a variant; to the one chosen by weight where it is None."""
        transport = EndpointTransport(self.aws, self.name, variant)
        return verify_golden_samples(
            self.url, bundle, timeout=_REQUEST_TIMEOUT_S, transport=transport
        )

    def load_bundle(self, name: str) -> Bundle:
        """Return the bundle that a variant was deployed from."""
        return self._resources.bentos.load_bundle(name)

    def set_stage(self, name: str, stage: str) -> None:
        """Tag a variant's SageMaker model with the stage of its version."""
        self._resources.tag_model(name, stage)

    @cached_property
    def _resources(self) -> EndpointResources:
        return EndpointResources(self.name, self.settings, self.aws)

    @cached_property
    def _scaling(self) -> VariantScaling:
        return VariantScaling(self.aws, self.name, self.settings.autoscaling)

    def _image(self) -> str:
        if self.settings.image is not None:
            return self.settings.image
        if self.build_image is None:
            raise ConfigError("image: name the image that new variants of the endpoint run in.")
        return self.build_image()

    def _retained_variants(
        self, state: EndpointState, keep: Collection[str]
    ) -> list[dict[str, Any]]:
        """Return the variants that stay beside a new one, and stop scaling the others."""
        # A variant that has requests may be in the records of another ZenML.
        retained = {*keep, *state.weights}
        for leaving in sorted(state.names - retained):
            self._scaling.stop(leaving)
        return self._resources.variant_specs(state, retained)

    def _drop(self, state: EndpointState, variant: str) -> None:
        """Delete a variant, and with the last one the endpoint."""
        specs = self._resources.variant_specs(state, state.names - {variant})
        if specs:
            self._resources.set_variants(state, specs)
        else:
            self._resources.delete_endpoint()

    def _require_weight_elsewhere(self, state: EndpointState, variant: str) -> None:
        """Refuse to delete the only variant with requests beside others, as SageMaker would."""
        others = ", ".join(sorted(state.names - {variant}))
        if others and state.weights.keys() == {variant}:
            raise EndpointError(
                f"The variant {variant} has all requests of endpoint {self.name}, beside {others}: "
                "give requests to another one first (deploy its version: python run.py --pipeline "
                "deployment), or delete the others first. "
                f"{self._resources.deletion_hint}"
            )

    def _undo_deployment(
        self,
        variant: str,
        keep: Collection[str],
        _kind: type[BaseException] | None,
        failure: BaseException | None,
        _traceback: object,
    ) -> None:
        """Delete a variant whose deployment failed, as soon as SageMaker allows it."""
        try:
            self._scaling.stop(variant)
            state = self._resources.await_settled()
            if state is not None and (state.status == FAILED or variant in state.names):
                self._drop(state, variant)
            self._resources.delete_unused(keep)
        # To be interrupted again is likely: SageMaker takes minutes.
        except (CVFactoryError, KeyboardInterrupt) as error:
            raise EndpointError(
                f"{_message(failure)}\nNor could it be undone: {_message(error)}\n"
                f"{self._resources.deletion_hint}"
            ) from failure

    def _changeable_state(self) -> EndpointState | None:
        """Return the state when SageMaker takes changes; None where there is no endpoint.

        Raises:
            EndpointError: It is in a state that can only be deleted.
        """
        state = self._resources.await_settled()
        if state is not None and state.status == FAILED:
            # It never served: SageMaker keeps a serving one when an update fails.
            self._resources.delete_endpoint()
            return None
        if state is not None and state.status != IN_SERVICE:
            raise EndpointError(
                f"The endpoint {self.name} cannot be changed: it is {state.status}"
                f"{f' ({state.reason})' if state.reason else ''}. Delete what is served (zenml "
                "model-deployer models delete UUID), and deploy again."
            )
        return state


def _has_weights(state: EndpointState | None, weights: Mapping[str, float]) -> bool:
    """Whether requests go to these variants by these weights, and to no others."""
    current = {v.name: v.weight for v in state.variants} if state is not None else {}
    return weights.keys() <= current.keys() and all(
        # SageMaker keeps weights in single precision.
        math.isclose(weight, weights.get(name, 0.0), rel_tol=1e-5)
        for name, weight in current.items()
    )


def _message(error: BaseException | None) -> str:
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
