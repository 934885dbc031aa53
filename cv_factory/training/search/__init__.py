"""Hyperparameter search: parallel trials, scored on folds of the training images."""
