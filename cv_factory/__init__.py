"""The library: images, transforms, models, predictors. It knows no orchestrator."""

#: As in pyproject.toml.
__version__ = "0.1.0"
