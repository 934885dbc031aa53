"""A factory under observation: real services behind the real proxy, Prometheus and its companions.

Prometheus, Alertmanager and node_exporter run with the files of ``stacks/observability``, in a copy
in which the addresses are those of this test and seconds stand for minutes.
"""

import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml

from cv_factory.deployment.local.proxy_process import ProxyProcess
from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.traffic import Arm, TlsFiles
from cv_factory.processes.ports import find_free_ports
from tests.support.alert_receiver import AlertReceiver, receive_alerts
from tests.support.certificates import CertificateAuthority
from tests.support.digits_service import ServiceProcess, digit_png, digits_bundle
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

FILES = ROOT / "stacks" / "observability"
PROGRAMS = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")


class ObservedFactory:
    """The processes; use it as a context.

    Attributes:
        metrics: Folder of the textfile collector.
        receiver: Takes what Alertmanager posts.
        url: URL of the model.
        services: By version.
    """

    def __init__(self, folder: Path, find_program: Callable[..., str]) -> None:
        """Find the programs; nothing is started yet."""
        self._programs = {name: find_program(name) for name in PROGRAMS}
        self._folder, self.metrics = folder, folder / "metrics"
        self._undo = ExitStack()
        self._authority = CertificateAuthority(folder)
        ports = find_free_ports(4)
        self._port, self._prometheus, self._alertmanager, self._node_exporter = ports
        self.url = f"https://127.0.0.1:{self._port}"
        self.services: dict[str, ServiceProcess] = {}
        front = folder / "digits" / "front"
        self._proxy = ProxyProcess(front, f"{front}#front", "127.0.0.1", self._port)
        self._tls = TlsFiles(*self._authority.issue())

    def __enter__(self) -> Self:
        """Start all, and wait until the model answers."""
        with ExitStack() as undo:
            self._undo = undo
            self.receiver: AlertReceiver = undo.enter_context(receive_alerts())
            self._start_services()
            config = self._write_config()
            self.metrics.mkdir()
            self._start("prometheus-node-exporter", (
                "--collector.disable-defaults", "--collector.textfile",
                f"--collector.textfile.directory={self.metrics}",
                f"--web.listen-address=127.0.0.1:{self._node_exporter}",
            ))  # fmt: skip
            self._start("prometheus-alertmanager", (
                f"--config.file={config / 'alertmanager.yml'}", "--cluster.listen-address=",
                f"--storage.path={self._folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{self._alertmanager}",
            ))  # fmt: skip
            self._start("prometheus", (
                f"--config.file={config / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self._prometheus}",
            ))  # fmt: skip
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all."""
        self._undo.close()

    def route(self, *versions: tuple[str, Arm, float]) -> None:
        """Distribute the requests among versions: number, arm and weight of each."""
        ports = {v: httpx.URL(service.url).port or 0 for v, service in self.services.items()}
        backends = tuple(
            Backend(version, ports[version], weight, version=version, arm=arm)
            for version, arm, weight in versions
        )
        self._proxy.set_routes(Routes(backends=backends, tls=self._tls), drain_timeout_s=1)

    def kill_service(self, version: str) -> None:
        """Kill a service with all of its processes."""
        process = self.services[version].process
        tree = [*psutil.Process(process.pid).children(recursive=True), process]
        for part in tree:
            part.kill()
        process.wait()

    def predict(self) -> None:
        """Send an image twice, and what is no image."""
        context = ssl.create_default_context(cafile=str(self._authority.file))
        with httpx.Client(base_url=self.url, verify=context, trust_env=False) as client:
            headers = {"Content-Type": "image/png"}
            for body in (digit_png(), digit_png(), b"hello"):
                client.post("/predict", content=body, headers=headers)

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        result = self.ask("query", query=promql)["result"]
        assert isinstance(result, list), result  # no scalar
        return result

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of Prometheus' API."""
        url = f"http://127.0.0.1:{self._prometheus}/api/v1/{path}"
        answer = httpx.get(url, params=parameters, trust_env=False).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def active_alerts(self) -> set[str]:
        """Return the names of the alerts that fire or are about to."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"]}

    def _start_services(self) -> None:
        bundle = self._folder / "bundle"
        bundle.mkdir()
        digits_bundle(has_familiarity=True, cache={"max_entries": 10}).save(bundle)
        for version in ("1", "2"):
            output = self._folder / version / "output"
            output.parent.mkdir()
            self.services[version] = ServiceProcess(bundle, output)
            self._undo.callback(self.services[version].stop)
        for service in self.services.values():
            service.wait()
        self._undo.callback(self._proxy.stop, 1)
        self.route(("1", "stable", 0.5), ("2", "canary", 0.5))

    def _start(self, name: str, arguments: tuple[str, ...]) -> None:
        log = self._folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [self._programs[name], *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self._folder,
            )
        self._undo.callback(process.wait, 60)
        self._undo.callback(process.kill)

    def _write_config(self) -> Path:
        """Copy the files with the addresses of this test, and return the folder."""
        folder = self._folder / "observability"
        shutil.copytree(FILES, folder)
        addresses = {
            ":3000": f":{self._port}",
            ":9100": f":{self._node_exporter}",
            ":9093": f":{self._alertmanager}",
            "http://127.0.0.1:9095": self.receiver.url,
            ": 15s": ": 200ms",
            "group_wait: 30s": "group_wait: 100ms",
            "group_interval: 5m": "group_interval: 200ms",
        }
        for path in folder.rglob("*.yml"):
            text = path.read_text()
            for word, other in addresses.items():
                text = text.replace(word, other)
            if path.name == "alerts.yml":
                text = re.sub(r"for: \w+", "for: 1s", text)
            path.write_text(text)
        config = yaml.safe_load((folder / "prometheus.yml").read_text())
        models: Mapping[str, Any] = config["scrape_configs"][0]
        tls = {"scheme": "https", "tls_config": {"ca_file": str(self._authority.file)}}
        config["scrape_configs"][0] = {**models, **tls}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        return folder

    def wait_for_post(self, status: str, alertname: str) -> dict[str, Any]:
        """Wait for what Alertmanager posts of an alert, and return the alert with its receiver."""

        def find() -> list[dict[str, Any]]:
            return [
                {**alert, "receiver": post.path.rpartition("/")[2]}
                for post in list(self.receiver.posts)
                for alert in post.json["alerts"]
                if (alert["status"], alert["labels"]["alertname"]) == (status, alertname)
            ]

        wait_until(find, 60, f"a post that {alertname} is {status}")
        return find()[0]
