"""Inference with exported predictors, with ONNX Runtime only: one image, batches, whole sources."""
