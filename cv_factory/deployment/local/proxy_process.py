"""The process of an endpoint's proxy: started on the stable port, given routes, stopped."""

import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from cv_factory.deployment.local.os_errors import translate_os_errors
from cv_factory.deployment.local.proxy import ROUTES, STATUS
from cv_factory.deployment.local.routes import Backend, ProxyStatus, Routes
from cv_factory.deployment.local.service_process import service_environment
from cv_factory.processes import daemon
from cv_factory.processes.daemon import Daemon, DaemonError
from cv_factory.processes.polling import poll_until

#: Modules that are started with ``python -m``.
ENTRY_POINTS: tuple[str, ...] = ("cv_factory.deployment.local.proxy",)
_REACTION_TIMEOUT_S = 20.0
_GRACE_PERIOD_S = 2.0


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

    def set_backends(self, backends: tuple[Backend, ...], drain_timeout_s: float) -> None:
        """Start the proxy if need be, change its routes, and wait until they are in force.

        Args:
            backends: The services that requests go to.
            drain_timeout_s: Seconds in which other services may answer what they were given.

        Raises:
            DaemonError: The port is taken, or the proxy does not react.
        """
        routes = Routes(self.routes.generation + 1, backends)
        with translate_os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            process = self.running
            # A proxy whose supervisor was killed goes on, and holds the port.
            is_orphan = process is None and bool(daemon.find_by_tag(self.tag))
            if not is_orphan and (process is None or process.port != self.port):
                self._require_free_port()
            routes.save(self.folder / ROUTES)
        if is_orphan:
            daemon.kill_by_tag(self.tag)
            self._require_free_port()
        if process is not None and process.port != self.port:
            process.stop(_GRACE_PERIOD_S)
        if self.running is None:
            self._start()
        self._await_routes(routes, drain_timeout_s)

    def remove(self) -> None:
        """Stop it and delete its folder: the port is free again."""
        process = daemon.load_process(self.folder)
        if process is not None:
            process.stop(_GRACE_PERIOD_S)
        shutil.rmtree(self.folder, ignore_errors=True)

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

    def _require_free_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise DaemonError(
                    f"{self.host}:{self.port} cannot be listened on ({error.strerror}): stop what "
                    f"uses it, or deploy with another port: --set endpoint.port={self.port + 1}."
                ) from None

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
