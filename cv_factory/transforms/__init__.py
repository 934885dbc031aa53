"""What is fitted on the training images before the model: normalization, PCA, label encoding."""
