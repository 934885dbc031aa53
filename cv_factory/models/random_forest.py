"""A random forest. L. Breiman, Random Forests, 2001."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cv_factory.config.model_section import ClassicalSection
from cv_factory.cpu import fitting_threads

if TYPE_CHECKING:
    from cv_factory.models import Estimator, Examples


class RandomForestConfig(ClassicalSection):
    """A random forest on features."""

    name: Literal["random_forest"] = "random_forest"
    n_estimators: int = Field(200, ge=1, le=5000, description="trees")
    max_depth: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="null: until leaves are pure"
    )
    min_samples_leaf: int = Field(1, ge=1, le=1000)
    max_features: Literal["sqrt", "log2"] = "sqrt"


def fit(config: RandomForestConfig, examples: "Examples", seed: int) -> "Estimator":
    """Fit on features and labels, weighted."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        n_estimators=config.n_estimators,
        max_depth=config.max_depth,
        min_samples_leaf=config.min_samples_leaf,
        max_features=config.max_features,
        random_state=seed,
        n_jobs=fitting_threads(),
    )
    fitted: Estimator = model.fit(
        examples.features, examples.labels, sample_weight=examples.weights
    )
    return fitted
