"""The predictor and how it is to be served become one bundle."""

from typing import Annotated, Any

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.serving import ServingConfig
from cv_factory.inference.predictor import Predictor
from cv_factory.serving.bundle import Bundle


@step(enable_cache=False)
def build_bundle(
    predictor: Predictor, serving: ServingConfig, facts: dict[str, Any]
) -> Annotated[Bundle, "bundle"]:
    """Never cached: the card of a version changes with its stage."""
    from registry.deployments import build_bundle as bundle_predictor

    return bundle_predictor(predictor, serving, facts)
