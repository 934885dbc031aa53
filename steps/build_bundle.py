"""Step ``build_bundle``: put predictor, model card and serving settings into one bundle."""

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
    """Build the bundle. Never cached: a version's card changes with its stage."""
    from registry.deployments import build_bundle as bundle_predictor

    return bundle_predictor(predictor, serving, facts)
