"""Client of Envoy's administration interface on the Unix socket in a proxy's folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cv_factory.deployment.local.envoy_config import ADMIN_SOCKET, GRPC, HTTP
from cv_factory.processes.polling import poll_until

_TIMEOUT_S = 5.0
_DRAIN_POLL_INTERVAL_S = 0.02
#: Statistics of the connections and requests of clients, whoever answers them.
_UNFINISHED = ("downstream_rq_active", "downstream_cx_tx_bytes_buffered")


class AdminError(Exception):
    """Envoy does not run, or does not answer as it should."""


@dataclass(frozen=True)
class Host:
    """A service as Envoy sees it.

    Attributes:
        cluster: ``http`` or ``grpc``.
        port: Its TCP port.
        is_healthy: Whether it has passed its last health check.
        n_active: Requests that it has not answered.
    """

    cluster: str
    port: int
    is_healthy: bool
    n_active: int


@dataclass(frozen=True)
class EnvoyAdmin:
    """Administration interface of the Envoy in a folder.

    All methods raise ``AdminError`` where it does not answer.
    """

    folder: Path

    def has_in_force(self, version: str) -> bool:
        """Return whether it serves by the files of a version."""
        pattern = (
            "^(cluster|http|listener_manager).*version_text$|^cluster_manager.warming_clusters$"
        )
        lines = self.get(f"/stats?filter={quote(pattern)}").splitlines()
        values = {line.rpartition(": ")[2].strip('"') for line in lines}
        # The clusters are warming until their services have been checked for the first time.
        return values == {version, "0"}

    def hosts(self) -> list[Host]:
        """Return the services that requests go to, have gone to, or will."""
        statuses = json.loads(self.get("/clusters?format=json"))["cluster_statuses"]
        return [
            _host(cluster["name"], host)
            for cluster in statuses
            if cluster["name"] in (HTTP, GRPC)
            for host in cluster.get("host_statuses", ())
        ]

    def drain(self, timeout_s: float) -> None:
        """Refuse new connections, and wait until the requests that came are answered."""
        self.post("/drain_listeners?graceful&skip_exit")  # kept connections end with an answer
        self.post("/drain_listeners")
        pattern = quote(f"^http.clients.({'|'.join(_UNFINISHED)})$")
        poll_until(
            lambda: not any(self._numbers(pattern)), timeout_s, interval_s=_DRAIN_POLL_INTERVAL_S
        )

    def get(self, path: str) -> str:
        """Return what it answers, as text."""
        return self._request("GET", path)

    def post(self, path: str) -> str:
        """Return what it answers to a command, as text."""
        return self._request("POST", path)

    def _numbers(self, pattern: str) -> list[int]:
        lines = self.get(f"/stats?filter={pattern}").splitlines()
        return [int(line.rpartition(": ")[2]) for line in lines]

    def _request(self, method: str, path: str) -> str:
        try:
            with _connect(self.folder / ADMIN_SOCKET) as connection:
                connection.request(method, path)
                response = connection.getresponse()
                text = response.read().decode()
        except (OSError, HTTPException) as error:
            raise AdminError(f"Envoy does not answer at {self.folder / ADMIN_SOCKET}.") from error
        if response.status != 200:
            raise AdminError(f"Envoy answers {path} with {response.status}: {text}")
        return text


def _host(cluster: str, status: dict[str, Any]) -> Host:
    gauges = {stat["name"]: int(stat.get("value", 0)) for stat in status["stats"]}
    is_healthy = not status["health_status"].get("failed_active_health_check", False)
    port = status["address"]["socket_address"]["port_value"]
    return Host(cluster, port, is_healthy, gauges["rq_active"])


@contextmanager
def _connect(path: Path) -> Iterator[HTTPConnection]:
    """Connect to a Unix socket, whose path may be longer than the system's limit."""
    folder = os.open(path.parent, os.O_RDONLY)
    connection = HTTPConnection("localhost", timeout=_TIMEOUT_S)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(_TIMEOUT_S)
        connection.sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        yield connection
    finally:
        connection.close()
        os.close(folder)
