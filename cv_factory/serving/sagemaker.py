"""Starts a service in a container of SageMaker: ``python -m cv_factory.serving.sagemaker serve``.

SageMaker puts a Bento under ``/opt/ml/model``, starts the image with the argument ``serve``, asks
``/ping`` until the service is there, and hands it the body of every request as ``/invocations``.
Nothing but SageMaker reaches the container, and IAM says who may invoke an endpoint.
"""

import os
import sys
from pathlib import Path

import click

from cv_factory.errors import CVFactoryError
from cv_factory.serving.__main__ import serve
from cv_factory.serving.service_environment import GATEWAY_VARIABLE

#: Set by SageMaker where it is not to be its usual port.
_PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
_USUAL_PORT = "8080"


@click.command()
@click.argument("command", type=click.Choice(["serve"]))
@click.option("--host", default="0.0.0.0", show_default=True, help="Where to listen.")  # noqa: S104
def main(command: str, host: str) -> None:
    """Serve the bundle that lies beside this code until told to end."""
    os.environ[GATEWAY_VARIABLE] = "SageMaker"
    bundle = Path(__file__).resolve().parents[2] / "bundle"
    try:
        serve(bundle, host, int(os.environ.get(_PORT_VARIABLE, _USUAL_PORT)))
    except CVFactoryError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
