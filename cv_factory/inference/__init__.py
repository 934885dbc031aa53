"""The predictor: runs what training exported, with ONNX Runtime and nothing else."""
