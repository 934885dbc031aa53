"""Entry point of SageMaker's container: ``python -m cv_factory.serving.sagemaker serve``.

SageMaker extracts a Bento to ``/opt/ml/model``, starts the image with the argument ``serve``, polls
``/ping`` and posts requests to ``/invocations``. Only SageMaker reaches the container, and IAM
authorizes who may invoke the endpoint.
"""

import os
import sys
from pathlib import Path

import click

from cv_factory.errors import print_error
from cv_factory.serving.__main__ import serve
from cv_factory.serving.service_environment import GATEWAY_VARIABLE

#: Set by SageMaker if the port is not the default.
_PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
_DEFAULT_PORT = 8080


@click.command()
@click.argument("command", type=click.Choice(["serve"]))
@click.option("--host", default="0.0.0.0", show_default=True, help="IP address.")  # noqa: S104
@click.option(
    "--port",
    default=_DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(1, 65_535),
    envvar=_PORT_VARIABLE,
    show_envvar=True,
    help="Port to listen on.",
)
def main(command: str, host: str, port: int) -> None:
    """Serve the bundle beside this code until stopped."""
    os.environ[GATEWAY_VARIABLE] = "SageMaker"
    bundle = Path(__file__).resolve().parents[2] / "bundle"
    try:
        serve(bundle, host, port)
    except Exception as error:  # noqa: BLE001 (a fault of the program is raised again)
        sys.exit(print_error(error))


if __name__ == "__main__":
    main()
