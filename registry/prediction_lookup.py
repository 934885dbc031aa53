"""Look-up of an earlier prediction in a model's prediction logs and its store of monitoring."""

from pathlib import Path
from typing import Any

from cv_factory.errors import ConfigError
from cv_factory.serving.logging.prediction_log import find_prediction
from registry.deployments import log_folders
from registry.monitoring_store import find_stored_prediction


def find_logged_prediction(
    model_name: str, prediction_id: str, folder: Path | None = None
) -> dict[str, Any]:
    """Return the record of a prediction of a model.

    Args:
        model_name: The model.
        prediction_id: The id that the service answered with.
        folder: Folder of the prediction log; None for those of the model's services on the active
            stack, and the store.

    Raises:
        ConfigError: No log has it, there is no log, or another model answered.
    """
    folders = [folder] if folder else log_folders(model_name)
    matches = filter(None, (find_prediction(folder, prediction_id) for folder in folders))
    prediction = next(matches, None)
    if prediction is None and folder is None:
        prediction = find_stored_prediction(model_name, prediction_id)
    if prediction is None and not folders:
        raise ConfigError(
            f"No service of {model_name} writes a prediction log (serving.log.predictions). "
            "Add the folder of an earlier one: --predictions FOLDER"
        )
    if prediction is None:
        names = ", ".join(map(str, folders))
        raise ConfigError(f"Prediction {prediction_id} is not in {names}.")
    if prediction["model"] != model_name:
        raise ConfigError(
            f"Prediction {prediction_id} was answered by model {prediction['model']}, not by "
            f"{model_name}. Add --model {prediction['model']}"
        )
    return prediction
