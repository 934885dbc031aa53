"""One service on this machine: its Bento, its process, and the key that verifies it."""

import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx
import psutil

import cv_factory
from cv_factory.artifacts.files import canonical_json, read_header, write_atomic
from cv_factory.deployment.bento import build_bento
from cv_factory.deployment.local.os_errors import translate_os_errors
from cv_factory.deployment.verify import VerificationResult, verify_golden_samples
from cv_factory.processes import daemon
from cv_factory.processes.daemon import Daemon, DaemonError
from cv_factory.processes.polling import poll_until
from cv_factory.processes.ports import LOOPBACK, find_free_ports, is_port_taken
from cv_factory.serving.auth.api_keys import (
    TEXT_VARIABLE,
    ApiKeyStore,
    KeyFile,
    StoredKey,
    hash_key,
)
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.service_environment import (
    GATEWAY_VARIABLE,
    GRPC_PORT_VARIABLE,
    STATE_VARIABLE,
)

_log = logging.getLogger(__name__)

#: Modules that are started with ``python -m``.
ENTRY_POINTS: tuple[str, ...] = ("cv_factory.serving",)
_BENTO, _PROBE_KEY, _STATE = "bento", "probe.key", "state.json"
_REQUEST_TIMEOUT_S = 10.0
#: Variables of this process that a service is given; the others may hold secrets.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "COVERAGE_RUN")
_OWN_PREFIX = "CV_FACTORY_"


@dataclass(frozen=True)
class ServiceProcess:
    """A service in a folder of its own.

    Attributes:
        folder: Holds the Bento, the key, the state and the record of the process.
        bentoml_home: BentoML's own folder, which the services of an endpoint share.
        tag: Of its processes; see ``Daemon``.
        variables: Variables, secrets among them, given to it beside the inherited ones.
    """

    folder: Path
    bentoml_home: Path
    tag: str
    variables: Mapping[str, str]

    @property
    def running(self) -> Daemon | None:
        """The process; None if it does not run."""
        return daemon.load_running(self.folder)

    @property
    def grpc_port(self) -> int | None:
        """Port on which it serves gRPC; None where it does not, as in earlier releases."""
        process = self.running
        if process is None:
            return None
        with suppress(psutil.Error):
            environment = daemon.read_environment(psutil.Process(process.pid))
            port = environment.get(GRPC_PORT_VARIABLE)
            if port is not None and is_port_taken(LOOPBACK, int(port)):
                return int(port)
        return None

    @property
    def version(self) -> str:
        """Number of the version that it serves, as text.

        Raises:
            ArtifactError: Its bundle is damaged.
        """
        header = read_header(self._bundle_folder, Bundle.KIND, Bundle.FORMAT_VERSION)
        return str(header["version"])

    @property
    def probe_key(self) -> str | None:
        """Key that verifies it and reads its metrics; None where it asks for none."""
        file = self.folder / _PROBE_KEY
        return file.read_text(encoding="utf-8") if file.exists() else None

    @property
    def is_ready(self) -> bool:
        """Whether it runs and reports that it is ready."""
        process = self.running
        return process is not None and _is_ready(process.port)

    def build(self, bundle: Bundle) -> None:
        """Build the Bento of a bundle in a new folder.

        Raises:
            CVFactoryError: The Bento cannot be built, or the disk is full.
        """
        with translate_os_errors(self.folder):
            self.folder.mkdir(parents=True)
            build_bento(bundle, self.folder / _BENTO)

    def start(self, timeout_s: float) -> VerificationResult:
        """Start the process unless it runs, wait until it is ready, and verify it.

        Raises:
            CVFactoryError: The bundle is damaged, it did not start, or it answers wrongly; then it
                is stopped.
        """
        bundle = self.load_bundle()
        _log.info("Starting %s version %s, and verifying it.", bundle.model_name, bundle.version)
        process = self.running or self._start_process(bundle)
        with ExitStack() as undo:
            undo.callback(process.stop, grace_period_s=1.0)
            self._await_ready(process, timeout_s)
            result = self.verify(f"http://{LOOPBACK}:{process.port}", bundle)
            undo.pop_all()
        return result

    def stop(self, grace_period_s: float) -> None:
        """Stop it with all its processes; its folder stays."""
        process = daemon.load_process(self.folder)
        if process is not None:
            process.stop(grace_period_s)

    def remove(self, grace_period_s: float) -> None:
        """Stop it with all its processes and delete its folder."""
        self.stop(grace_period_s)
        shutil.rmtree(self.folder, ignore_errors=True)

    def verify(
        self, url: str, bundle: Bundle, transport: httpx.BaseTransport | None = None
    ) -> VerificationResult:
        """Send the golden samples to an address, with the key of this service.

        Args:
            url: Without a path.
            bundle: Should be served there.
            transport: Used instead of plain HTTP.

        Raises:
            VerificationError: An answer is missing, wrong, or of another version.
        """
        key = self.probe_key
        headers = {"X-API-Key": key} if key is not None else {}
        return verify_golden_samples(
            url, bundle, timeout=_REQUEST_TIMEOUT_S, headers=headers, transport=transport
        )

    def load_bundle(self) -> Bundle:
        """Return the bundle that it was built from.

        Raises:
            ArtifactError: It is damaged.
        """
        return Bundle.load(self._bundle_folder)

    def set_state(self, **values: str) -> None:
        """Write ``stage``, ``arm`` or ``rollout`` of its version, which it reads when they change.

        Raises:
            DaemonError: The disk is full.
        """
        file = self.folder / _STATE
        state = json.loads(file.read_bytes()) if file.exists() else {}
        if state != {**state, **values}:
            with translate_os_errors(self.folder):
                write_atomic(file, canonical_json({**state, **values}).encode())

    @property
    def _bundle_folder(self) -> Path:
        return self.folder / _BENTO / "src" / "bundle"

    def _start_process(self, bundle: Bundle) -> Daemon:
        # A copy of the code: what is deployed does not change with the project.
        source = self.folder / _BENTO / "src"
        port, grpc_port = find_free_ports(2)
        variables = {
            STATE_VARIABLE: str(self.folder / _STATE),
            GRPC_PORT_VARIABLE: str(grpc_port),
            "BENTOML_HOME": str(self.bentoml_home),
            **self.variables,
            **self._probe_key_variables(bundle),
            "PYTHONPATH": str(source),
        }
        command = [sys.executable, "-m", ENTRY_POINTS[0], "bundle"]
        with translate_os_errors(self.folder):
            # An earlier supervisor that was killed left its workers behind.
            daemon.kill_by_tag(self.tag)
            return daemon.start(
                [*command, "--host", LOOPBACK, "--port", str(port)],
                self.folder,
                self.tag,
                port,
                cwd=source,
                environment=service_environment(variables),
            )

    def _probe_key_variables(self, bundle: Bundle) -> dict[str, str]:
        """Make a key to verify the service with, where it asks for keys; return its variable."""
        environment = service_environment(self.variables)
        has_no_keys = ApiKeyStore.from_environment(environment) is None
        if has_no_keys and bundle.serving.access.jwt is None:
            return {}
        key = secrets.token_urlsafe(32)
        probe = self.folder / _PROBE_KEY
        probe.touch(mode=0o600)
        probe.write_text(key, encoding="utf-8")
        configured = KeyFile.model_validate_json(environment.get(TEXT_VARIABLE) or '{"keys": []}')
        stored = StoredKey(name="deployer", sha256=hash_key(key), roles=["predict", "admin"])
        return {TEXT_VARIABLE: KeyFile(keys=[*configured.keys, stored]).model_dump_json()}

    def _await_ready(self, process: Daemon, timeout_s: float) -> None:
        def is_ready() -> bool:
            if not process.is_alive:
                raise DaemonError(
                    f"The service ended while it started:\n{daemon.log_tail(self.folder)}"
                )
            return _is_ready(process.port)

        if not poll_until(is_ready, timeout_s):
            raise DaemonError(
                f"The service was not ready after {timeout_s:g} s:\n{daemon.log_tail(self.folder)}"
            )


def service_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a service or proxy: inherited variables and these."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        # A gateway before this process is none before the services.
        if (name in _INHERITED or name.startswith(_OWN_PREFIX)) and name != GATEWAY_VARIABLE
    }
    root = str(Path(cv_factory.__file__).resolve().parents[1])
    return {**inherited, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1", **variables}


def _is_ready(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
