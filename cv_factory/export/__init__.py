"""From a trained model to the predictor: ONNX graph, calibration, quantization."""
