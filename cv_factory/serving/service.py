"""BentoML service: runs the application of a bundle and answers BentoML's health checks.

BentoML imports this module in its supervisor as well as in each worker, so it imports nothing heavy
and opens nothing until an instance is created.
"""

import logging
import os
import time
from contextlib import nullcontext
from functools import cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import bentoml
from bentoml import Service

from cv_factory.errors import ConfigError, CVFactoryError
from cv_factory.serving import compat
from cv_factory.serving.logging.json_lines import configure_event_logging, log_event
from cv_factory.serving.service_environment import grpc_port, served_file

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cv_factory.serving.application import Application
    from cv_factory.serving.protocols.grpc_server import GrpcServer

#: Seconds before the first, second, ... retry of a worker that replaces another; then the last.
_RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
#: Paths that BentoML answers itself: liveness and readiness of the worker.
_BENTOML_PATHS = {"/livez", "/readyz"}


async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Pass a request to the application of this process's service instance."""
    await _current_application()(scope, receive, send)


@cache
def _current_application() -> "Application":
    # Not in each request: BentoML imports the module of the function each time it is named.
    app: Application = bentoml.get_current_service().app
    return app


class DirectService(Service[Any]):  # type: ignore[misc]  # BentoML loads the name lazily
    """BentoML service whose requests bypass BentoML's middleware."""

    def to_asgi(self, is_main: bool = True) -> "ASGIApp":
        """Return the application that BentoML's worker runs."""
        compat.bound_http_protocol()
        return compat.bypass_middleware(super().to_asgi(is_main), application, _BENTOML_PATHS)


@bentoml.service(
    name="cv_factory",
    service_class=DirectService,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(application, path="/")
class PredictorService:
    """BentoML service of the bundle that the environment names (``service_environment``)."""

    grpc: "GrpcServer | None" = None

    def __init__(self) -> None:
        configure_event_logging()
        self.app = _open_application_with_retries()
        compat.tune_interpreter()

    async def __is_ready__(self) -> bool:
        """Whether the golden samples are predicted as at export."""
        return await self.app.is_ready()

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def serve_grpc(self) -> None:
        """Serve gRPC beside HTTP, if the environment names a port for it."""
        from cv_factory.serving.auth.access import listening_hosts

        try:
            port = grpc_port()
            if port is None:
                return
            self.grpc = self.app.build_grpc_server()
            await self.grpc.start(listening_hosts(), port)
        except ConfigError as error:
            log_event("cannot-start", logging.ERROR, detail=str(error))
            compat.stop_supervisor(str(error))
            raise

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Answer what has arrived over gRPC, and flush the logs."""
        if self.grpc is not None:
            await self.grpc.stop()
        self.app.close()


def _open_application_with_retries() -> "Application":
    """Open the application of the bundle; a worker that replaces another retries until it can.

    Raises:
        CVFactoryError: It cannot be opened, and no worker of this server has answered requests yet.
    """
    served = served_file(os.getppid())
    is_restart = served.exists()
    with compat.default_sigterm() if is_restart else nullcontext():
        for delay_s in chain(_RETRY_DELAYS_S, repeat(_RETRY_DELAYS_S[-1])):
            try:
                app = _open_application(is_restart=is_restart)
            except CVFactoryError as error:
                if not is_restart:
                    log_event("cannot-start", logging.ERROR, detail=str(error))
                    compat.stop_supervisor(str(error))
                    raise
                log_event(
                    "cannot-start", logging.ERROR, detail=str(error), retry_after_seconds=delay_s
                )
                time.sleep(delay_s)
            else:
                served.touch()
                return app
    raise AssertionError("unreachable")


def _open_application(*, is_restart: bool) -> "Application":
    """Open the application of the bundle.

    Raises:
        CVFactoryError: The bundle is damaged, or would be exposed without access control.
    """
    from cv_factory.processes.log_rotation import rotate_output
    from cv_factory.serving.application import Application
    from cv_factory.serving.auth.access import check_exposure, listening_hosts
    from cv_factory.serving.auth.api_keys import ApiKeyStore
    from cv_factory.serving.bundle import Bundle
    from cv_factory.serving.service_environment import bundle_directory, gateway, state_file

    bundle = Bundle.load(bundle_directory())
    keys = ApiKeyStore.from_environment()
    if warning := check_exposure(bundle.serving, keys, listening_hosts(), gateway()):
        log_event("open", logging.WARNING, detail=warning)
    log = bundle.serving.log
    rotate_output(log.max_file_bytes, log.output_files)
    compat.isolate_multiprocess_metrics()
    app = Application(bundle, keys=keys, state_file=state_file(), is_restart=is_restart)
    log_event("serving", model=bundle.model_name, version=bundle.version)
    return app
