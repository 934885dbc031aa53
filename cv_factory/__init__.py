"""The library: images, transforms, models, predictors. It knows no orchestrator."""
