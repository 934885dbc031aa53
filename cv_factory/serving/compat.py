"""Workarounds for BentoML and CPython, each with the version that needs it.

``tests/unit/serving/test_compat.py`` fails when one of them is no longer needed. BentoML loads this
module in its supervisor and in each worker, so it imports nothing heavy.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from cv_factory.serving.service_environment import (
    METRICS_VARIABLE,
    server_directory,
    startup_error_file,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_WORKER_CHECK_INTERVAL_S = 0.5
_HTTP_PROTOCOL = "cv_factory.serving.http_protocol:BoundedHttpProtocol"
_WORKER_MODULE = "_bentoml_impl.worker.service"


def shorten_worker_check_interval() -> None:
    """Let the supervisor check its workers twice a second.

    BentoML 1.4.39 checks every 10 s, and ``serve_http`` has no argument for it.
    """
    from bentoml._internal.utils import circus

    circus.create_standalone_arbiter = partial(
        circus.create_standalone_arbiter, check_delay=_WORKER_CHECK_INTERVAL_S
    )


def set_worker_count(service: Any, workers: int) -> None:
    """Set the number of workers of a ``bentoml.Service`` when it is started.

    BentoML 1.4.39 takes it from the decorator only; ``serve_http`` has no argument for it.
    """
    service.config["workers"] = workers
    service.inject_config()


def bypass_middleware(bentoml_app: "ASGIApp", app: "ASGIApp", bentoml_paths: set[str]) -> "ASGIApp":
    """Return an application that sends requests to ``app`` without BentoML's middleware.

    BentoML 1.4.39 traces every request and keeps its context for the timeout's 60 s even with
    metrics and access log off: more work than the application's own. Only lifespan events and
    ``bentoml_paths`` go to ``bentoml_app``.
    """

    async def dispatch(scope: "Scope", receive: "Receive", send: "Send") -> None:
        is_direct = scope["type"] != "lifespan" and scope["path"] not in bentoml_paths
        await (app if is_direct else bentoml_app)(scope, receive, send)

    return dispatch


def bound_http_protocol() -> None:
    """Let this worker's uvicorn use our HTTP protocol.

    BentoML 1.4.39 creates uvicorn's configuration without an argument for it.
    """
    from uvicorn.config import HTTP_PROTOCOLS

    HTTP_PROTOCOLS["auto"] = _HTTP_PROTOCOL


def isolate_multiprocess_metrics() -> None:
    """Let the workers of this server share their Prometheus metrics in a folder of their own.

    BentoML 1.4.39 has one folder for all services of a user, and empties it whenever one starts.
    """
    directory = server_directory(os.getppid())
    directory.mkdir(mode=0o700, exist_ok=True)
    os.environ[METRICS_VARIABLE] = str(directory)


def stop_supervisor(reason: str) -> None:
    """Write why this worker cannot start to ``startup_error_file`` and stop its supervisor.

    BentoML 1.4.39 restarts workers that fail at startup forever. Does nothing outside a worker.
    """
    main = sys.modules["__main__"].__spec__
    if main is None or main.name != _WORKER_MODULE:
        return
    file = startup_error_file(os.getppid())
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_text(reason, encoding="utf-8")
    os.kill(os.getppid(), signal.SIGTERM)


@contextmanager
def default_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process at once, within a block.

    uvicorn 0.54 notes the signal and acts when the startup is complete, which may be never.
    """
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def tune_interpreter() -> None:
    """Shorten the pauses that CPython 3.11 to 3.13 causes at its defaults.

    Objects loaded so far are excluded from garbage collection, and collections become rare. A
    thread that returns from the graph would else wait up to 5 ms for the interpreter's lock.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(0.0005)
