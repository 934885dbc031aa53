"""Command line of the service: ``python -m cv_factory.serving BUNDLE [--host H] [--port P]``."""

import ipaddress
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import click

from cv_factory.errors import ConfigError, CVFactoryError, print_error
from cv_factory.serving.service_environment import (
    BUNDLE_VARIABLE,
    GRPC_PORT_VARIABLE,
    create_server_directory,
    gateway,
    startup_error_file,
)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="IP address to listen on.")
@click.option(
    "--port",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 65_535),
    envvar="CV_FACTORY_PORT",
    show_envvar=True,
    help="Port to listen on.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(1, 65_535),
    envvar=GRPC_PORT_VARIABLE,
    show_envvar=True,
    help="Port to serve gRPC on; without it none is served.",
)
def main(bundle: Path, host: str, port: int, grpc_port: int | None) -> None:
    """Serve the BUNDLE directory until interrupted."""
    try:
        serve(bundle, host, port, grpc_port)
    except Exception as error:  # noqa: BLE001 (a fault of the program is raised again)
        sys.exit(print_error(error))


def serve(bundle: Path, host: str, port: int, grpc_port: int | None = None) -> None:
    """Run a BentoML server in this process until SIGTERM or SIGINT.

    Raises:
        CVFactoryError: The bundle is damaged, would be exposed without access control, or its
            workers cannot start.
    """
    from cv_factory.processes.log_rotation import rotate_output
    from cv_factory.processes.ports import reserve_port
    from cv_factory.serving.auth.access import check_exposure
    from cv_factory.serving.auth.api_keys import ApiKeyStore
    from cv_factory.serving.bundle import Bundle

    config = Bundle.load(bundle).serving
    check_exposure(config, ApiKeyStore.from_environment(), [host], gateway())
    _check_address(host, port, "--port")
    if grpc_port is not None:
        _check_address(host, grpc_port, "--grpc-port")
        os.environ[GRPC_PORT_VARIABLE] = str(grpc_port)
        # Workers share the port; while one is replaced, no other program is to take it.
        reservation = reserve_port(host, grpc_port)
    os.environ[BUNDLE_VARIABLE] = str(bundle.absolute())
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    directory = create_server_directory(os.getpid())
    # BentoML creates a store when it is imported, which nothing here uses; HOME may be read-only.
    os.environ.setdefault("BENTOML_HOME", str(directory / "bentoml"))
    try:
        from _bentoml_impl.server import serve_http

        from cv_factory.serving import compat, service

        # BentoML's decorator turns the class into a Service.
        bentoml_service: Any = service.PredictorService
        compat.shorten_worker_check_interval()
        compat.set_worker_count(bentoml_service, config.workers)
        rotate_output(config.log.max_file_bytes, config.log.output_files)
        serve_http(bentoml_service, host=host, port=port)
        if (error_file := startup_error_file(os.getpid())).exists():
            raise CVFactoryError(error_file.read_text(encoding="utf-8"))
    finally:
        if grpc_port is not None:
            reservation.close()
        shutil.rmtree(directory, ignore_errors=True)


def _check_address(host: str, port: int, option: str) -> None:
    """Check an address before the workers start, which would fail on it later.

    Raises:
        ConfigError: The host is no IP address, or the port is in use.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise ConfigError(
            f"--host {host} is not an IP address: give one, such as 127.0.0.1."
        ) from None
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {host} port {port} ({error.strerror}): choose another {option}, "
                "or stop the process that uses it."
            ) from None


if __name__ == "__main__":
    main()
