"""A model's endpoint on this machine: a proxy on a stable port, and the services behind it.

Everything of it is in one folder, so that any process can find, change and stop it.
"""

import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cv_factory.deployment.endpoint import Endpoint, ServiceHealth
from cv_factory.deployment.local.envoy_admin import AdminError, EnvoyAdmin
from cv_factory.deployment.local.metrics import count_requests
from cv_factory.deployment.local.proxy_process import TAG_SUFFIX, ProxyProcess
from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.local.service_process import ServiceProcess, service_environment
from cv_factory.deployment.local.tls import client_context
from cv_factory.deployment.traffic import Share, Traffic
from cv_factory.deployment.verify import VerificationResult
from cv_factory.errors import StackError
from cv_factory.processes import daemon
from cv_factory.processes.daemon import Daemon, DaemonError
from cv_factory.processes.log_tail import LogReader
from cv_factory.processes.ports import LOOPBACK
from cv_factory.serving.auth.access import check_exposure
from cv_factory.serving.auth.api_keys import ApiKeyStore
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.service_counters import ServiceCounters

_LOG_POLL_INTERVAL_S = 0.2
#: Where this machine's clients reach a proxy that listens on all interfaces.
_LOOPBACK_BY_INTERFACE = {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}  # noqa: S104 (compares)


@dataclass(frozen=True)
class LocalEndpoint(Endpoint):
    """The endpoint of one model on this machine.

    Attributes:
        folder: Everything of the endpoint; made by the first deployment.
        host: Address that the proxy listens on.
        port: Port that the proxy listens on.
        variables: Variables, secrets among them, given to services beside the inherited ones.
        start_timeout_s: Seconds in which a service must be ready.
        drain_timeout_s: Seconds in which a service may finish the requests it was given.
    """

    folder: Path
    host: str
    port: int
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    start_timeout_s: float = 90.0
    drain_timeout_s: float = 30.0

    @property
    def url(self) -> str:
        """Address of the proxy, for clients on this machine."""
        host = _LOOPBACK_BY_INTERFACE.get(self.host, self.host)
        scheme = "http" if self.traffic().tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def prediction_url(self) -> str:
        """URL that images are sent to, whatever version answers."""
        return f"{self.url}/predict"

    @property
    def is_open(self) -> bool:
        """Whether the proxy runs."""
        return self._proxy.running is not None

    def check_address(self) -> None:
        """Refuse a port that another process, such as another model's proxy, listens on."""
        self._proxy.check_port()

    def deploy(
        self, name: str, bundle: Bundle, *, keep: Collection[str] = (), is_new: bool = True
    ) -> VerificationResult:
        """Start and verify a service, unless other machines would reach it without keys."""
        self.check_address()
        self._prune({*keep, name})
        if not is_new:
            return self.start(name)
        service = self._service(name)
        service.remove(self.drain_timeout_s)
        self._require_keys(bundle)
        with ExitStack() as undo:
            undo.callback(service.remove, self.drain_timeout_s)
            service.build(bundle)
            result = service.start(self.start_timeout_s)
            undo.pop_all()
        return result

    def start(self, name: str, timeout_s: float | None = None) -> VerificationResult:
        """Start a stopped service again, unless it runs, and verify it."""
        return self._service(name).start(timeout_s or self.start_timeout_s)

    def stop(self, name: str) -> None:
        """Stop a service with all its processes; it can be started again."""
        self._service(name).stop(self.drain_timeout_s)

    def remove(self, name: str) -> None:
        """Stop a service and delete all of it; the proxy goes with the last one that serves."""
        traffic = self.traffic()
        if name in traffic.shares:
            rest = traffic.only([n for n in traffic.shares if n != name and self.running(n)])
            if rest.weights:
                self.set_traffic(rest)
            else:
                self.close()
        self._service(name).remove(self.drain_timeout_s)

    def traffic(self) -> Traffic:
        """Return how the requests are distributed among the services, by their names."""
        routes = self._proxy.routes
        shares = {
            backend.name: Share(backend.mirror_share or backend.weight, backend.arm)
            for backend in routes.backends
        }
        return Traffic(shares, routes.sticky, routes.tls)

    def set_traffic(self, traffic: Traffic) -> None:
        """Distribute the requests in another way, and start the proxy if need be.

        Returns when services that are given nothing any more have answered what they had.
        """
        backends = tuple(self._backend(name, traffic) for name in traffic.shares)
        for name, share in traffic.shares.items():
            self._service(name).set_state(arm=share.arm)
        routes = Routes(backends=backends, sticky=traffic.sticky, tls=traffic.tls)
        self._proxy.set_routes(routes, self.drain_timeout_s)

    def verify(self, name: str, bundle: Bundle) -> VerificationResult:
        """Send the golden samples to the proxy, as any client would."""
        tls = self.traffic().tls
        transport = httpx.HTTPTransport(verify=client_context(tls)) if tls else None
        return self._service(name).verify(self.url, bundle, transport)

    def load_bundle(self, name: str) -> Bundle:
        """Return the bundle that a service was deployed from."""
        return self._service(name).load_bundle()

    def set_stage(self, name: str, stage: str) -> None:
        """Attach the stage of its version to a service, which reports it."""
        self._service(name).set_state(stage=stage)

    def set_rollout(self, name: str, text: str) -> None:
        """Attach what became of the last rollout to a service, which reports it."""
        self._service(name).set_state(rollout=text)

    def health(self, name: str) -> ServiceHealth:
        """Return the health of a service, by its process and what it answers."""
        service = self._service(name)
        if service.running is None:
            return ServiceHealth("missing", "the process is gone; start it again")
        if not service.is_ready:
            return ServiceHealth("starting", "the process runs, but is not ready")
        traffic = self.traffic()
        if name in traffic.shares and not self.is_open:
            return ServiceHealth("unreachable", "the proxy before it is gone; start it again")
        return ServiceHealth("serving", f"is given {traffic.describe(name)} of the requests")

    def counters(self) -> dict[str, ServiceCounters]:
        """Return what each service has counted, as it and the proxy say.

        Raises:
            StackError: The proxy does not answer.
        """
        routes = self._proxy.routes
        keys = {backend: self._service(backend.name).probe_key for backend in routes.backends}
        try:
            return count_requests(routes, keys, EnvoyAdmin(self._proxy.folder).get)
        except AdminError as error:
            raise StackError(f"The requests of each version are not counted: {error}") from None

    def healthcheck_url(self, name: str) -> str | None:
        """Return the URL at which this very service says whether it is ready."""
        process = self.running(name)
        return f"http://{LOOPBACK}:{process.port}/readyz" if process else None

    def log_lines(
        self, name: str, *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Yield the lines that a service printed; following ends with its process."""
        with LogReader(self.log_file(name)) as log:
            lines = log.lines()
            yield from lines if tail is None else deque(lines, maxlen=tail)
            while follow and self.running(name):
                time.sleep(_LOG_POLL_INTERVAL_S)
                yield from log.lines()

    def describe(self, name: str) -> dict[str, str | None]:
        """Return what people want to know of a service, by upper-case key."""
        process = self.running(name)
        return {
            "PREDICTION_HOSTNAME": self.host,
            "PREDICTION_APIS_URLS": f"{self.url}/predict {self.url}/predict/batch",
            "HEALTH_CHECK_URL": self.healthcheck_url(name),
            "DAEMON_PID": str(process.pid) if process else None,
            "LOG_FILE": str(self.log_file(name)),
        }

    def running(self, name: str) -> Daemon | None:
        """Return the process of a service; None if it does not run."""
        return self._service(name).running

    def log_file(self, name: str) -> Path:
        """Return where a service's output goes."""
        return daemon.log_file(self._service(name).folder)

    def close(self) -> None:
        """Stop the proxy once it has answered what is in flight: the port is free again."""
        self._proxy.remove(self.drain_timeout_s)

    @property
    def _proxy(self) -> ProxyProcess:
        # The names on disk are those of earlier releases, whose proxies may run.
        tag = f"{self.folder}{TAG_SUFFIX}"
        return ProxyProcess(self.folder / "front", tag, self.host, self.port)

    def _prune(self, keep: Collection[str]) -> None:
        """Remove all other services, such as what a killed deployment left behind."""
        for folder in (self.folder / "services").glob("*"):
            if folder.name not in keep:
                self._service(folder.name).remove(self.drain_timeout_s)

    def _service(self, name: str) -> ServiceProcess:
        return ServiceProcess(
            self.folder / "services" / name,
            self.folder / "bentoml",
            f"{self.folder}#{name}",
            self.variables,
        )

    def _backend(self, name: str, traffic: Traffic) -> Backend:
        service = self._service(name)
        process = service.running
        if process is None:
            raise DaemonError(
                f"The service {name} does not run.\n{daemon.log_tail(service.folder)}"
            )
        return Backend(
            name,
            process.port,
            traffic.weights.get(name, 0.0),
            service.grpc_port,
            service.version,
            traffic.shares[name].arm,
            traffic.shadows.get(name, 0.0),
        )

    def _require_keys(self, bundle: Bundle) -> None:
        """Refuse a proxy that other machines reach and whose services ask for no keys.

        The services cannot see that themselves: they listen on this machine's loopback.
        """
        keys = ApiKeyStore.from_environment(service_environment(self.variables))
        check_exposure(bundle.serving, keys, [self.host])
