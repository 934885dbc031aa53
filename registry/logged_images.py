"""HMACs of images, by which the prediction log of a model knows them."""

from collections.abc import Callable
from pathlib import Path

from cv_factory.errors import ConfigError
from cv_factory.serving.inference_engine import decode_input
from cv_factory.serving.logging.image_facts import KEY_FILE, image_hmac, load_key
from registry.deployments import deployed_bundle


def open_image_hasher(model_name: str) -> Callable[[bytes], str]:
    """Return a function that returns the HMAC of an encoded image.

    It raises ``ImageError`` for what is no image that the service would take.

    Raises:
        ConfigError: No service of the model has logged a prediction on this machine.
    """
    bundle = deployed_bundle(model_name)
    folder = bundle.serving.log.predictions if bundle is not None else None
    if bundle is None or folder is None or not (Path(folder) / KEY_FILE).exists():
        raise ConfigError(
            f"No service of {model_name} on this machine logs predictions, so its images cannot be "
            "recognized. Give prediction ids (column prediction_id), or set "
            "serving.log.predictions and deploy."
        )
    key, contract, limits = (
        load_key(Path(folder)), bundle.predictor.contract, bundle.serving.limits,
    )  # fmt: skip
    return lambda content: image_hmac(decode_input(content, contract, limits).pixels, key)
