"""The BentoML service: it starts the application of a bundle and answers BentoML's health hooks.

BentoML imports this module in its supervisor as well as in each worker, so that it imports nothing
heavy and opens nothing until an instance is made.
"""

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import bentoml
from bentoml import Service

from cv_factory.errors import ArtifactError, CVFactoryError
from cv_factory.serving.logging.request_log import say

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cv_factory.serving.application import Application


#: What BentoML answers itself: whether the worker lives, and whether it is ready.
_HOOKS = frozenset({"/livez", "/readyz"})


async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Hand a request to the application of the instance that runs in this process."""
    await bentoml.get_current_service().app(scope, receive, send)


class DirectService(Service[Any]):  # type: ignore[misc]  # BentoML loads the name lazily
    """A service whose requests go to the application without BentoML's middleware.

    It would trace and time each, and keep what belongs to each for the time-out's 60 s: more work
    than the application's own, which has limits, time-outs, logs and metrics.
    """

    def to_asgi(self, is_main: bool = True) -> "ASGIApp":
        """Return what BentoML's worker runs."""
        bentomls = super().to_asgi(is_main)

        async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
            ours = scope["type"] == "http" and scope["path"] not in _HOOKS
            await (application if ours else bentomls)(scope, receive, send)

        return answer


@bentoml.service(
    name="cv_factory",
    service_class=DirectService,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(application, path="/")
class PredictorService:
    """BentoML service of the bundle that the environment names (``service_environment``)."""

    def __init__(self) -> None:
        try:
            self.app = _open()
        except CVFactoryError as error:
            say("cannot-start", detail=str(error))
            _end_server(str(error))
            raise
        _tune_interpreter()

    def __is_ready__(self) -> bool:
        """Whether the golden samples are answered as they should be."""
        try:
            self.app.prove()
        except ArtifactError as error:
            say("not-ready", detail=str(error))
            return False
        return True

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write what waits to be written."""
        self.app.close()


def _open() -> "Application":
    """Open the application of the bundle.

    Raises:
        CVFactoryError: The bundle is damaged, or must not be served like this.
    """
    from cv_factory.processes.log_rotation import rotate_output
    from cv_factory.serving.application import create_app
    from cv_factory.serving.auth.access import check_exposure, listening_hosts
    from cv_factory.serving.auth.api_keys import ApiKeyStore
    from cv_factory.serving.bundle import Bundle
    from cv_factory.serving.service_environment import (
        bundle_directory,
        gateway,
        share_metrics,
        state_file,
    )

    bundle = Bundle.load(bundle_directory())
    keys = ApiKeyStore.from_environment()
    if warning := check_exposure(bundle.serving, keys, listening_hosts(), gateway()):
        say("open", detail=warning)
    log = bundle.serving.log
    rotate_output(log.max_file_bytes, log.output_files)
    share_metrics()
    opened = create_app(bundle, keys=keys, state_file=state_file())
    say("serving", model=bundle.model_name, version=bundle.version)
    return opened


def _end_server(reason: str) -> None:
    """End BentoML's supervisor, which would start workers that cannot work for ever."""
    from cv_factory.serving.service_environment import last_words

    main = sys.modules["__main__"].__spec__
    if main is not None and main.name == "_bentoml_impl.worker.service":
        words = last_words(os.getppid())
        words.parent.mkdir(mode=0o700, exist_ok=True)
        words.write_text(reason, encoding="utf-8")
        os.kill(os.getppid(), signal.SIGTERM)


def _tune_interpreter() -> None:
    """Let nothing stop requests for long: neither garbage collections nor another thread.

    What is loaded is left out of collections, and these are made rare. A thread that comes back
    from the graph, or the event loop that was interrupted by one, would wait up to 5 ms for the
    interpreter's lock.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(0.0005)
