"""The workarounds of ``serving/compat.py`` are still needed; a failing test names which is not."""

import inspect
import re
import subprocess
import sys

from _bentoml_impl.server.app import ServiceAppFactory
from _bentoml_impl.server.serving import serve_http
from _bentoml_impl.worker import service as worker_module
from bentoml import Service, serving
from bentoml._internal.utils import circus
from circus.watcher import Watcher
from uvicorn import Config, Server
from uvicorn.config import HTTP_PROTOCOLS


def test_bentoml_checks_its_workers_rarely() -> None:
    source = inspect.getsource(circus.create_standalone_arbiter)
    assert 'kwargs.pop("check_delay", 10)' in source, "remove shorten_worker_check_interval"
    assert "check_delay" not in inspect.getsource(serve_http), "pass it to serve_http"


def test_bentoml_takes_the_number_of_workers_from_the_decorator_only() -> None:
    assert "workers" not in inspect.signature(serve_http).parameters, "remove set_worker_count"


def test_bentoml_traces_requests_even_without_metrics_and_access_log() -> None:
    class Empty:
        pass

    switches = {"logging": {"access": {"enabled": False}}, "metrics": {"enabled": False}}
    service = Service(name="empty", config=switches, inner=Empty)
    service.inject_config()
    middleware = {item.cls.__name__ for item in ServiceAppFactory(service).middlewares}
    costly = {"OpenTelemetryMiddleware", "ContextMiddleware"}
    assert costly <= middleware, "remove bypass_middleware"


def test_uvicorn_waits_for_heads_without_end_and_bentoml_chooses_its_protocol() -> None:
    assert "http" not in worker_options(), "pass BoundedHttpProtocol to the worker"
    assert HTTP_PROTOCOLS["auto"], "find another way to choose uvicorn's protocol"
    parameters = inspect.signature(Config).parameters
    assert not any("head" in n and "timeout" in n for n in parameters), "set uvicorn's own timeout"


def test_uvicorn_waits_for_websocket_messages_without_end() -> None:
    options = {name for name in inspect.signature(Config).parameters if name.startswith("ws_")}
    bounds = {"ws_max_size", "ws_max_queue", "ws_ping_interval", "ws_ping_timeout"}
    assert options == bounds | {"ws_per_message_deflate"}, "see BoundedWebSocketProtocol"


def worker_options() -> set[str]:
    """Return the names of the arguments with which BentoML's worker configures uvicorn."""
    [call] = re.findall(
        r"uvicorn\.Config\((.*?)\n    \)", inspect.getsource(worker_module), re.DOTALL
    )
    return set(re.findall(r"^        (\w+)=", call, re.MULTILINE))


def test_uvicorn_notes_sigterm_until_it_has_started() -> None:
    assert "should_exit = True" in inspect.getsource(Server.handle_exit), "remove default_sigterm"


def test_bentoml_shares_and_empties_one_metrics_folder() -> None:
    source = inspect.getsource(serve_http)
    assert '"PROMETHEUS_MULTIPROC_DIR": ensure_prometheus_dir()' in source, (
        "remove isolate_multiprocess_metrics"
    )
    assert inspect.signature(serving.ensure_prometheus_dir).parameters["clean"].default is True


def test_bentoml_restarts_workers_that_fail_at_startup() -> None:
    assert "respawn=not running_inside_container()" in inspect.getsource(serving.create_watcher), (
        "remove stop_supervisor"
    )
    # The retries are of the fork, not of a process that ends soon.
    assert "max_retry" not in inspect.getsource(Watcher.manage_processes)


def test_cpython_collects_often_and_switches_threads_rarely() -> None:
    code = "import gc, sys; print(gc.get_threshold()[0] < 50_000, sys.getswitchinterval() > 0.0005)"
    output = subprocess.check_output([sys.executable, "-I", "-c", code], text=True)
    assert output.split() == ["True", "True"], "remove tune_interpreter"
