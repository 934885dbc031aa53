"""``run.py predict``: predict images with a running service or with a bundle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cv_factory.errors import ConfigError, CVFactoryError, ImageError

if TYPE_CHECKING:
    from httpx import BaseTransport

    from cv_factory_client import ImagePrediction


@click.command("predict")
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--url",
    help="URL of the service, such as http://127.0.0.1:3000, grpc://HOST:PORT, https://HOST, "
    "grpcs://HOST or sagemaker://ENDPOINT.",
)
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file of the CA that signed the service's certificate, if it is your own.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory of a bundle; predicts in this process.",
)
@click.option(
    "--api-key",
    envvar="CV_FACTORY_API_KEY",
    help="API key, if the service requires one.  [env var: CV_FACTORY_API_KEY]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per image.")
def command(
    images: tuple[Path, ...],
    url: str | None,
    ca: Path | None,
    bundle: Path | None,
    api_key: str | None,
    as_json: bool,
) -> int:
    """Predict IMAGES with a service or a bundle."""
    if (url is None) == (bundle is None):
        raise ConfigError("Add either --url URL of a service, or --bundle DIRECTORY of a bundle.")
    if url is not None:
        predictions = _predict_by_service(url, api_key, ca, images)
    else:
        assert bundle is not None
        predictions = _predict_by_bundle(bundle, images)
    for image, prediction in zip(images, predictions, strict=True):
        click.echo(_format_prediction(image, prediction, as_json))
    return 0


def _predict_by_service(
    url: str, api_key: str | None, ca: Path | None, images: Sequence[Path]
) -> list["ImagePrediction"]:
    """Predict with a service.

    Raises:
        ConfigError: The URL, the key or the CA certificate cannot be used.
        CVFactoryError: The service cannot be reached, or rejects an image, which is named.
    """
    from cv_factory_client import ClientConfigError, PredictionClient, ServiceError

    scheme, _, endpoint = url.partition("://")
    transport = _endpoint_transport(endpoint) if scheme == "sagemaker" else None
    predictions = []
    try:
        with PredictionClient(url, api_key, ca=ca, transport=transport) as client:
            for image in images:
                predictions.append(client.predict(image.read_bytes()))
    except ClientConfigError as error:
        raise ConfigError(str(error)) from None
    except ServiceError as error:
        if error.status is None:  # whatever the image
            advice = "What is served, and where: python run.py status"
            raise CVFactoryError(f"{str(error).rstrip('.')}. {advice}") from None
        raise CVFactoryError(f"{image}: {error}") from None
    return predictions


def _endpoint_transport(endpoint: str) -> "BaseTransport":
    """Return the transport to an endpoint on SageMaker, in the configured AWS region."""
    from cv_factory.deployment.sagemaker.aws_calls import AwsClients
    from cv_factory.deployment.sagemaker.transport import EndpointTransport

    return EndpointTransport(AwsClients(), endpoint.rstrip("/"))


def _predict_by_bundle(directory: Path, images: Sequence[Path]) -> list["ImagePrediction"]:
    """Predict with the same decoding, graph and postprocessing as the service.

    Raises:
        ImageError: An image cannot be read; the message names the file.
    """
    import asyncio

    from cv_factory.serving.bundle import Bundle
    from cv_factory.serving.inference_engine import InferenceEngine
    from cv_factory_client import ImagePrediction

    bundle = Bundle.load(directory)
    engine = InferenceEngine(bundle)
    predictions = []
    for image in images:
        try:
            pixels = engine.decode(image.read_bytes())
        except ImageError as error:
            raise ImageError(f"{image}: {error}") from None
        [result] = asyncio.run(engine.predict([pixels]))
        predictions.append(
            ImagePrediction(**result.to_dict(), model=bundle.model_name, version=bundle.version)
        )
    engine.close()
    return predictions


def _format_prediction(image: Path, prediction: "ImagePrediction", as_json: bool) -> str:
    if as_json:
        from dataclasses import asdict

        return json.dumps({"image": str(image), **asdict(prediction)})
    best = max(prediction.probabilities.values(), default=0.0)
    # Rounded, it would read as certain.
    probability = "> 99.9%" if 0.9995 <= best < 1 else f"{best:.1%}"
    label = prediction.label if prediction.label is not None else "(not sure)"
    unfamiliar = (
        f"UNFAMILIAR (score {prediction.unfamiliarity:.4f}, bound 1)  "
        if prediction.unfamiliar
        else ""
    )
    return (
        f"{image}: {label}  {probability}  {unfamiliar}{prediction.model} version "
        f"{prediction.version}  prediction {prediction.id}"
    )
