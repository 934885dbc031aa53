"""From a dataset and a fitted transform to a trained model and its exported predictor."""
