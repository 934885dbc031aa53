"""The library behind CV Factory: images, transforms, models, predictors. It knows no orchestrator."""
