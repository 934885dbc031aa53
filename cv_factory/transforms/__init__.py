"""Transforms fitted on the training images: normalization, PCA, label encoding."""
