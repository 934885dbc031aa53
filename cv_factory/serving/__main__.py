"""Starts a service by hand: ``python -m cv_factory.serving BUNDLE_DIR [--host H] [--port P]``."""

import ipaddress
import os
import shutil
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from cv_factory.errors import ConfigError, CVFactoryError
from cv_factory.serving.service_environment import (
    BUNDLE_VARIABLE,
    gateway,
    last_words,
    shared_directory,
)

#: How often it is looked whether the workers live. BentoML would look every 10 s.
_SECONDS_BETWEEN_LOOKS = 0.5


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 65_535),
    envvar="CV_FACTORY_PORT",
    show_envvar=True,
)
def main(bundle: Path, host: str, port: int) -> None:
    """Serve the BUNDLE directory until interrupted."""
    try:
        serve(bundle, host, port)
    except CVFactoryError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


def serve(bundle: Path, host: str, port: int) -> None:
    """Run a BentoML server in this process until it is told to end (SIGTERM, SIGINT).

    Raises:
        CVFactoryError: The bundle is damaged, or must not be served like this.
    """
    from cv_factory.processes.log_rotation import rotate_output
    from cv_factory.serving.auth.access import check_exposure
    from cv_factory.serving.auth.api_keys import ApiKeyStore
    from cv_factory.serving.bundle import Bundle

    config = Bundle.load(bundle).serving
    check_exposure(config, ApiKeyStore.from_environment(), [host], gateway())
    _check_place(host, port)
    os.environ[BUNDLE_VARIABLE] = str(bundle.absolute())
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    from _bentoml_impl.server import serve_http
    from bentoml._internal.utils import circus

    from cv_factory.serving import service

    # serve_http has no argument for it.
    circus.create_standalone_arbiter = partial(
        circus.create_standalone_arbiter, check_delay=_SECONDS_BETWEEN_LOOKS
    )
    # BentoML's decorator makes a Service of the class.
    served: Any = service.PredictorService
    served.config["workers"] = config.workers
    served.inject_config()
    rotate_output(config.log.max_file_bytes, config.log.output_files)
    try:
        serve_http(served, host=host, port=port)
        if (words := last_words(os.getpid())).exists():
            raise CVFactoryError(words.read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(shared_directory(os.getpid()), ignore_errors=True)


def _check_place(host: str, port: int) -> None:
    """Refuse what BentoML would only fail at later.

    Raises:
        ConfigError: It is no IP address, or the port is taken.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise ConfigError(f"--host {host}: give an IP address, such as 127.0.0.1.") from None
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host} port {port} cannot be listened on ({error.strerror}): choose another "
                "--port, or end what uses it."
            ) from None


if __name__ == "__main__":
    main()
