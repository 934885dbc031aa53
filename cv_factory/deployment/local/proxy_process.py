"""The process of an endpoint's proxy: started on the stable port, given routes, stopped."""

import errno
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import psutil

from cv_factory.deployment.local.os_errors import translate_os_errors
from cv_factory.deployment.local.routes import (
    ROUTES,
    STATUS,
    ProxyStatus,
    Routes,
    wake_proxy,
)
from cv_factory.deployment.local.service_process import service_environment
from cv_factory.processes import daemon
from cv_factory.processes.daemon import Daemon, DaemonError
from cv_factory.processes.polling import poll_until
from cv_factory.processes.ports import find_listener, is_port_taken, listen

#: Modules that are started with ``python -m``.
ENTRY_POINTS: tuple[str, ...] = ("cv_factory.deployment.local.proxy",)
#: Ends the tag of a proxy, behind the folder of its endpoint; the name of earlier releases.
TAG_SUFFIX = "#front"
_REACTION_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class ProxyProcess:
    """The proxy of an endpoint.

    Attributes:
        folder: Holds its routes, its status and the record of the process.
        tag: Of its processes; see ``Daemon``.
        host: Address that it listens on.
        port: Port that it listens on.
    """

    folder: Path
    tag: str
    host: str
    port: int

    @property
    def running(self) -> Daemon | None:
        """The process; None if it does not run."""
        return daemon.load_running(self.folder)

    @property
    def routes(self) -> Routes:
        """The routes that it was given last."""
        return Routes.load(self.folder / ROUTES)

    def set_routes(self, routes: Routes, drain_timeout_s: float) -> None:
        """Start the proxy if need be, change its routes, and wait until they are in force.

        Args:
            routes: The services that requests go to; their generation is given here.
            drain_timeout_s: Seconds in which other services, and a proxy on another port, may
                answer what they were given.

        Raises:
            DaemonError: The port is taken, or the proxy does not react.
        """
        self.check_port()
        routes = replace(routes, generation=self.routes.generation + 1)
        with translate_os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            routes.save(self.folder / ROUTES)
        wake_proxy(self.folder)
        if not self._is_on_port:
            self.stop(drain_timeout_s)
            self._start()
        self._await_routes(routes, drain_timeout_s)

    def check_port(self) -> None:
        """Check that the proxy runs on its port, or can.

        Raises:
            DaemonError: Another process listens there, or the address cannot be used.
        """
        if self._is_on_port:
            return
        try:
            listen(self.host, self.port).close()
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            # A proxy whose supervisor was killed goes on, and is replaced.
            if is_taken and self.running is None and daemon.find_by_tag(self.tag):
                return
            used = f"is used by {self._describe_listener()}"
            problem = used if is_taken else f"cannot be listened on ({error.strerror})"
            ports = chain(range(max(self.port + 1, 1024), 65_536), range(1024, self.port))
            free = next(port for port in ports if not is_port_taken(self.host, port))
            cure = "Stop that" if is_taken else "Set another host of the model deployer"
            raise DaemonError(
                f"Port {self.port} of {self.host} {problem}. {cure}, or deploy with another port: "
                f"--pipeline deployment --set endpoint.port={free}"
            ) from None

    def stop(self, drain_timeout_s: float) -> None:
        """Stop it, wherever it listens; it answers what is in flight for so many seconds."""
        process = daemon.load_process(self.folder)
        if process is not None:
            process.stop(drain_timeout_s)

    def remove(self, drain_timeout_s: float) -> None:
        """Stop it and delete its folder: the port is free again."""
        self.stop(drain_timeout_s)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _is_on_port(self) -> bool:
        process = self.running
        return process is not None and process.port == self.port

    def _describe_listener(self) -> str:
        """Return which process has the port, and of which model where it is a proxy."""
        process = find_listener(self.port)
        with suppress(psutil.Error):
            if process is not None:
                tag = process.environ().get(daemon.TAG_VARIABLE, "")
                model = Path(tag.removesuffix(TAG_SUFFIX)).name
                name = f"the proxy of model {model}" if tag.endswith(TAG_SUFFIX) else process.name()
                return f"{name} (process {process.pid})"
        return "a process of another user"

    def _start(self) -> None:
        command = [sys.executable, "-m", ENTRY_POINTS[0]]
        with translate_os_errors(self.folder):
            (self.folder / STATUS).unlink(missing_ok=True)
            daemon.start(
                [*command, str(self.folder), self.host, str(self.port)],
                self.folder,
                self.tag,
                self.port,
                cwd=self.folder,
                environment=service_environment({}),
            )

    def _await_routes(self, routes: Routes, drain_timeout_s: float) -> None:
        names = {backend.name for backend in routes.backends}

        def is_in_force() -> bool:
            if self.running is None:
                raise DaemonError(f"The proxy ended:\n{daemon.log_tail(self.folder)}")
            status = ProxyStatus.load(self.folder / STATUS)
            return status is not None and status.generation == routes.generation

        def is_drained() -> bool:
            status = ProxyStatus.load(self.folder / STATUS)
            return status is None or not (status.in_flight.keys() - names)

        if not poll_until(is_in_force, _REACTION_TIMEOUT_S):
            raise DaemonError(f"The proxy does not react:\n{daemon.log_tail(self.folder)}")
        poll_until(is_drained, drain_timeout_s)
