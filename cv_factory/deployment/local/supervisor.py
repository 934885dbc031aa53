"""Supervisor of a model's proxy: starts Envoy, and starts it again when it is killed or crashes.

It keeps the port reserved, the logs bounded and the certificate fresh. Where it is killed, Envoy
goes on. On SIGTERM new connections are refused, and what is in flight is answered.
"""

import argparse
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cv_factory.deployment.local.envoy_admin import AdminError, EnvoyAdmin
from cv_factory.deployment.local.envoy_config import (
    ACCESS_LOG,
    ADMIN_SOCKET,
    CERTIFICATE,
    ENVOY_LOG,
    METRICS_SOCKET,
)
from cv_factory.deployment.local.envoy_files import read_certificate, replace_files, rewrite_files
from cv_factory.deployment.local.metrics import MetricsServer, Response, scrape_model
from cv_factory.deployment.local.routes import ROUTES, Routes
from cv_factory.errors import CVFactoryError
from cv_factory.processes.log_rotation import rotate_file, rotate_output
from cv_factory.processes.ports import reserve_port

#: An Envoy that ends so often within so many seconds is given up.
_MAX_STARTS, _WINDOW_S = 10, 10.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOP_SIGNALS, signal.SIGCHLD)
_UPKEEP_INTERVAL_S = 1.0
#: Who stops the proxy decides when what is still in flight is given up, at the latest after this.
_DRAIN_TIMEOUT_S = 300.0


class Supervisor:
    """Runs Envoy in a folder until this process is asked to end."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        address: tuple[str, int],
        log_limits: tuple[int, int],
    ) -> None:
        """Prepare.

        Args:
            folder: Of the proxy, with its routes; in the endpoint's, which is named as the model.
            command: Program and arguments of Envoy.
            address: IP address and TCP port that clients are accepted on.
            log_limits: Bytes of a log file beyond which a new one begins, and how many are kept.
        """
        self._folder = folder
        self._command = list(command)
        self._address = address
        self._log_limits = log_limits
        self._model = folder.parent.name
        self._certificate_version: object = None

    def run(self) -> int:
        """Return the exit code: 0 when asked to end, 1 if Envoy ends too often."""
        # Waited for without polling: blocked signals are kept, so that none is missed.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # before any thread starts
        rotate_output(*self._log_limits)
        MetricsServer(Path(METRICS_SOCKET), self._scrape)
        starts: deque[float] = deque(maxlen=_MAX_STARTS)
        while len(starts) < _MAX_STARTS or time.monotonic() - starts[0] > _WINDOW_S:
            starts.append(time.monotonic())
            pid = self._start()
            while not _has_ended(pid):
                received = signal.sigtimedwait(_SIGNALS, _UPKEEP_INTERVAL_S)
                if received is not None and received.si_signo in _STOP_SIGNALS:
                    self._stop(pid)
                    return 0
                self._maintain(pid)
        return 1

    def _scrape(self, headers: Mapping[str, str]) -> Response:
        routes = Routes.load(self._folder / ROUTES)
        return scrape_model(routes, self._model, headers, EnvoyAdmin(self._folder).get)

    def _start(self) -> int:
        try:
            rewrite_files(self._folder, self._address)
            self._certificate_version = None
            self.renew_certificate()
        except (CVFactoryError, OSError) as error:
            sys.stderr.write(f"The files of Envoy stay as they are: {error}\n")
        (self._folder / ADMIN_SOCKET).unlink(missing_ok=True)
        return os.posix_spawn(self._command[0], self._command, os.environ, setsigmask=())

    def _stop(self, pid: int) -> None:
        with suppress(AdminError):
            EnvoyAdmin(self._folder).drain(_DRAIN_TIMEOUT_S)
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)

    def _maintain(self, pid: int) -> None:
        """Rotate the logs, and load a renewed certificate."""
        for name in (ACCESS_LOG, ENVOY_LOG):
            if rotate_file(self._folder / name, *self._log_limits):
                os.kill(pid, signal.SIGUSR1)  # opens both again
        try:
            self.renew_certificate()
        except (CVFactoryError, OSError) as error:
            sys.stderr.write(f"The certificate in use stays: {error}\n")

    def renew_certificate(self) -> None:
        """Write the certificate for Envoy if its files have changed.

        Raises:
            ConfigError: It cannot be used.
            OSError: It cannot be written, such as on a full disk.
        """
        tls = Routes.load(self._folder / ROUTES).tls
        if tls is None:
            return
        version = _file_version(tls.certificate), _file_version(tls.key)
        if version != self._certificate_version:
            self._certificate_version = version  # one that cannot be used is reported once
            certificate = read_certificate(tls)
            try:
                replace_files(self._folder, {CERTIFICATE: certificate})
            except OSError:
                self._certificate_version = None  # what a full disk does not take is tried again
                raise


def _file_version(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size
    return None


def _has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def main() -> None:
    """Run the proxy of a folder in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("max_log_bytes", type=int)
    parser.add_argument("log_files", type=int)
    parser.add_argument("envoy", nargs=argparse.REMAINDER, help="the command that starts Envoy")
    arguments = parser.parse_args()
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        # The system limits the length of a socket's path: those in the folder are named alone.
        os.chdir(arguments.folder)
        with reserve_port(arguments.host, arguments.port) as reserved:
            address = reserved.getsockname()[:2]
            limits = arguments.max_log_bytes, arguments.log_files
            sys.exit(Supervisor(arguments.folder, arguments.envoy, address, limits).run())
    except (CVFactoryError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
