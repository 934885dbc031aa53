"""A model's endpoint on this machine: a front on a stable port, and the services behind it.

Everything about it is in one folder, so that any process can find, change and stop it.
"""

import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

import cv_factory
from cv_factory.deployment.bento import build_bento
from cv_factory.deployment.local.proxy import ROUTES, STATUS
from cv_factory.deployment.local.routes import Backend, FrontStatus, Routes
from cv_factory.deployment.verify import Proof, prove
from cv_factory.processes import daemon
from cv_factory.processes.daemon import Daemon, DaemonError
from cv_factory.serving.auth.access import check_exposure
from cv_factory.serving.auth.api_keys import (
    TEXT_VARIABLE,
    ApiKeyStore,
    KeyFile,
    StoredKey,
    hash_key,
)
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.service_environment import GATEWAY_VARIABLE, STATE_VARIABLE

_LOOPBACK = "127.0.0.1"
#: What a service runs, in its folder.
_BENTO = "bento"
#: The key that a service is proven with, in its folder.
_PROBE = "probe.key"
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 10.0
_FRONT_SECONDS = 20.0
#: Of this process's environment, what a service is given; the rest may hold secrets.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "COVERAGE_RUN")
_OWN_PREFIX = "CV_FACTORY_"


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served on this machine.

    Attributes:
        folder: Everything about the endpoint; made when something is put up.
        host: Address that the front listens on.
        port: Port that the front listens on.
        variables: Variables, secrets among them, that services are given beside the ordinary ones.
        drain_seconds: How long a service may take to finish what it was given.
    """

    folder: Path
    host: str
    port: int
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    drain_seconds: float = 30.0

    @property
    def url(self) -> str:
        """Where clients on this machine find the model, whatever version answers."""
        host = _LOOPBACK if self.host in ("0.0.0.0", "") else self.host  # noqa: S104 (compares)
        return f"http://{host}:{self.port}"

    def put_up(self, name: str, bundle: Bundle, timeout: float) -> Proof:
        """Start a service and prove it; it is given no requests yet.

        Args:
            name: Of the service, unique in the endpoint.
            bundle: What it serves.
            timeout: Seconds until it must be ready.

        Raises:
            CVFactoryError: It did not start or does not answer as it should, or the disk is full;
                nothing of it is left. Or it must not be reached from elsewhere without keys.
        """
        folder = self._service(name)
        self._require_keys(bundle)
        with ExitStack() as undo:
            undo.callback(self.remove, name)
            with _told(folder):
                folder.mkdir(parents=True)
                build_bento(bundle, folder / _BENTO)
            proof = self.bring_up(name, timeout)
            undo.pop_all()
        return proof

    def bring_up(self, name: str, timeout: float) -> Proof:
        """Start a service that was put up before, unless it runs, and prove it.

        Raises:
            CVFactoryError: Its bundle is damaged, it did not start, or it answers wrongly.
        """
        folder, bundle = self._service(name), self.bundle_of(name)
        running = self.running(name)
        if running is None:
            running = self._start(name)
        with ExitStack() as undo:
            undo.callback(running.stop, grace_period_s=1.0)
            _await_ready(running, folder, timeout)
            proof = self._prove(f"http://{_LOOPBACK}:{running.port}", name, bundle)
            undo.pop_all()
        return proof

    def prove(self, name: str, bundle: Bundle) -> Proof:
        """Send the golden samples of a service's bundle to the front, as any client would.

        Raises:
            ProofError: An answer is missing, wrong, or of another version.
        """
        return self._prove(self.url, name, bundle)

    def bundle_of(self, name: str) -> Bundle:
        """Return what a service was put up with.

        Raises:
            ArtifactError: It is damaged.
        """
        return Bundle.load(self._service(name) / _BENTO / "src" / "bundle")

    def running(self, name: str) -> Daemon | None:
        """Return the process of a service; None if it does not run."""
        found = daemon.load_process(self._service(name))
        return found if found is not None and found.is_alive else None

    def is_ready(self, name: str) -> bool:
        """Whether a service runs and says that it is ready."""
        running = self.running(name)
        return running is not None and _says_ready(running.port)

    @property
    def is_open(self) -> bool:
        """Whether the front runs."""
        return self._running_front() is not None

    def shares(self) -> dict[str, float]:
        """Return the share of the requests that each service is given, by name."""
        routes = Routes.load(self._front / ROUTES)
        total = sum(backend.weight for backend in routes.backends) or 1.0
        return {backend.name: backend.weight / total for backend in routes.backends}

    def route(self, weights: Mapping[str, float]) -> None:
        """Give requests to these services and no others, and start the front if need be.

        Returns when the front has taken over the change and the services that are given nothing
        any more have answered what they had.

        Raises:
            DaemonError: A service does not run, or the front's port is taken.
        """
        backends = tuple(self._backend(name, weight) for name, weight in weights.items())
        routes = Routes(Routes.load(self._front / ROUTES).generation + 1, backends)
        with _told(self._front):
            self._front.mkdir(parents=True, exist_ok=True)
            front = self._running_front()
            # It goes on when its supervisor is killed, and holds the port.
            is_orphan = front is None and bool(daemon.find_by_tag(self._tag("front")))
            if not is_orphan and (front is None or front.port != self.port):
                self._require_free_port()
            routes.save(self._front / ROUTES)
        if is_orphan:
            self._end_orphans("front")
            self._require_free_port()
        if front is not None and front.port != self.port:
            front.stop(grace_period_s=2.0)
        if self._running_front() is None:
            self._start_front()
        self._await_routes(routes)

    def take_down(self, name: str) -> None:
        """Stop a service wholly; what it was put up with stays."""
        found = daemon.load_process(self._service(name))
        if found is not None:
            found.stop(self.drain_seconds)

    def remove(self, name: str) -> None:
        """Stop a service wholly and delete everything about it."""
        self.take_down(name)
        shutil.rmtree(self._service(name), ignore_errors=True)

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove every other service: what a killed deployment has left."""
        kept = set(names)
        for folder in (self.folder / "services").glob("*"):
            if folder.name not in kept:
                self.remove(folder.name)

    def close(self) -> None:
        """Stop the front: the port is free again."""
        found = daemon.load_process(self._front)
        if found is not None:
            found.stop(grace_period_s=2.0)
        shutil.rmtree(self._front, ignore_errors=True)

    def log_file(self, name: str) -> Path:
        """Return where a service's output goes."""
        return daemon.log_file(self._service(name))

    def set_stage(self, name: str, stage: str) -> None:
        """Let a service say which stage its version is in."""
        from cv_factory.artifacts.files import canonical_json, write_atomic

        write_atomic(self._service(name) / "state.json", canonical_json({"stage": stage}).encode())

    @property
    def _front(self) -> Path:
        return self.folder / "front"

    def _service(self, name: str) -> Path:
        return self.folder / "services" / name

    def _backend(self, name: str, weight: float) -> Backend:
        running = self.running(name)
        if running is None:
            raise DaemonError(
                f"The service {name} does not run.\n{daemon.log_tail(self._service(name))}"
            )
        return Backend(name, running.port, weight)

    def _require_keys(self, bundle: Bundle) -> None:
        """Refuse a front that other machines reach and whose services ask for no keys.

        The services cannot see that themselves: they listen on this machine's loopback.
        """
        keys = ApiKeyStore.from_environment(_environment(self.variables))
        check_exposure(bundle.serving, keys, [self.host])

    def _prove(self, url: str, name: str, bundle: Bundle) -> Proof:
        probe = self._service(name) / _PROBE
        headers = {"X-API-Key": probe.read_text(encoding="utf-8")} if probe.exists() else {}
        return prove(url, bundle, timeout=_ANSWER_SECONDS, headers=headers)

    def _start(self, name: str) -> Daemon:
        folder, port = self._service(name), _free_port()
        arguments = ["bundle", "--host", _LOOPBACK, "--port", str(port)]
        variables = {
            STATE_VARIABLE: str(folder / "state.json"),
            "BENTOML_HOME": str(self.folder / "bentoml"),
            **self.variables,
            **self._probe_keys(name),
        }
        command = [sys.executable, "-m", "cv_factory.serving", *arguments]
        with _told(folder):
            self._end_orphans(name)
            return daemon.start(
                command,
                folder,
                self._tag(name),
                port,
                cwd=folder / _BENTO / "src",
                environment={
                    **_environment(variables),
                    # Its own copy of the code: what is deployed does not change with the project.
                    "PYTHONPATH": str(folder / _BENTO / "src"),
                },
            )

    def _probe_keys(self, name: str) -> dict[str, str]:
        """Make a key to prove a service with, where it asks for keys; return how it is told."""
        bundle = self.bundle_of(name)
        told = _environment(self.variables)
        if ApiKeyStore.from_environment(told) is None and bundle.serving.access.jwt is None:
            return {}
        key = secrets.token_urlsafe(32)
        probe = self._service(name) / _PROBE
        probe.touch(mode=0o600)
        probe.write_text(key, encoding="utf-8")
        given = KeyFile.model_validate_json(told.get(TEXT_VARIABLE) or '{"keys": []}')
        stored = StoredKey(name="deployer", sha256=hash_key(key))
        return {TEXT_VARIABLE: KeyFile(keys=[*given.keys, stored]).model_dump_json()}

    def _start_front(self) -> None:
        module, place = (
            "cv_factory.deployment.local.proxy",
            [str(self._front), self.host, str(self.port)],
        )
        with _told(self._front):
            (self._front / STATUS).unlink(missing_ok=True)
            daemon.start(
                [sys.executable, "-m", module, *place],
                self._front,
                self._tag("front"),
                self.port,
                cwd=self._front,
                environment=_environment({}),
            )

    def _running_front(self) -> Daemon | None:
        found = daemon.load_process(self._front)
        return found if found is not None and found.is_alive else None

    def _require_free_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise DaemonError(
                    f"{self.host}:{self.port} cannot be listened on ({error.strerror}): stop what "
                    "uses it, or give another port (endpoint.port in the deployment's "
                    "configuration, or the model deployer's)."
                ) from None

    def _await_routes(self, routes: Routes) -> None:
        """Wait until the front works by these routes, and nothing else is being answered."""
        kept = {backend.name for backend in routes.backends}

        def is_done() -> bool:
            if self._running_front() is None:
                raise DaemonError(f"The front ended:\n{daemon.log_tail(self._front)}")
            status = FrontStatus.load(self._front / STATUS)
            return status is not None and status.generation == routes.generation

        def is_drained() -> bool:
            status = FrontStatus.load(self._front / STATUS)
            return status is None or not (status.in_flight.keys() - kept)

        if not _wait(is_done, _FRONT_SECONDS):
            raise DaemonError(f"The front does not react:\n{daemon.log_tail(self._front)}")
        _wait(is_drained, self.drain_seconds)

    def _end_orphans(self, name: str) -> None:
        """End what an earlier process left behind, when its supervisor was killed."""
        orphans = daemon.find_by_tag(self._tag(name))
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(orphans, timeout=5)

    def _tag(self, name: str) -> str:
        return f"{self.folder}#{name}"


def _await_ready(running: Daemon, folder: Path, timeout: float) -> None:
    def is_ready() -> bool:
        if not running.is_alive:
            raise DaemonError(f"The service ended while it started:\n{daemon.log_tail(folder)}")
        return _says_ready(running.port)

    if not _wait(is_ready, timeout):
        raise DaemonError(
            f"The service was not ready after {timeout:g} s:\n{daemon.log_tail(folder)}"
        )


def _says_ready(port: int) -> bool:
    connection = HTTPConnection(_LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    passed = {
        name: value
        for name, value in os.environ.items()
        # What stands before this process does not stand before the services.
        if (name in _PASSED_ON or name.startswith(_OWN_PREFIX)) and name != GATEWAY_VARIABLE
    }
    root = str(Path(cv_factory.__file__).resolve().parents[1])
    return {**passed, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1", **variables}


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what the system refuses, such as a full disk, into an error that says so."""
    try:
        yield
    except shutil.Error as error:
        # Of each file that could not be copied: from where, to where, why.
        first: tuple[str, str, str] = error.args[0][0]
        raise DaemonError(f"{folder} cannot be written ({first[2]}).") from None
    except OSError as error:
        raise DaemonError(f"{folder} cannot be written ({error.strerror or error}).") from None
