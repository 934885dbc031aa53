"""Lost requests and seconds of an update, and of a killed worker.

An endpoint on loopback serves a logistic regression of the digits; 4 threads ask without a pause.
ROUNDS (default 5) times a new service replaces the old one, then its worker is killed.
Run: python -m benchmarks.redeployment [ROUNDS]
"""

import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import psutil

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.serving_clients import Clients
from cv_factory.config.data import DataConfig
from cv_factory.config.serving import ServingConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.encode import encode_png
from cv_factory.deployment.local.endpoint import LocalEndpoint
from cv_factory.inference.predictor import Predictor
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.bundle import Bundle

CLIENTS = 4
_START_SECONDS = 120.0


def train_digits() -> Predictor:
    """Train and export a logistic regression on 600 digits."""
    from cv_factory.data.ingest import ingest
    from cv_factory.data.split import split_dataset
    from cv_factory.export.onnx_graph import export_predictor
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    dataset = ingest(DataConfig(limit=600))
    split = split_dataset(dataset, SplitConfig())
    settings = TransformConfig(pca=PCAConfig(n_components=16))
    transform = fit_transform(dataset, split.train, settings)
    trained = train(dataset, split, transform, LogisticRegressionConfig(), TrainConfig())
    return export_predictor(trained, transform, {}, dataset, split.validation)


def measure(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Replace and kill, and return the figures of each round."""
    predictor = train_digits()
    endpoint = LocalEndpoint(folder, "127.0.0.1", find_free_port(), start_timeout_s=_START_SECONDS)
    figures: dict[str, list[float]] = {
        name: []
        for name in ("start_seconds", "switch_seconds", "requests", "lost_by_update",
                     "back_seconds_after_kill", "lost_by_kill")
    }  # fmt: skip
    old = ""
    try:
        for number in range(rounds + 1):
            name = f"version-{number}"
            bundle = Bundle(
                predictor, ServingConfig(), "digits", str(number), created="2026-01-01T00:00:00Z"
            )
            if number == 0:
                endpoint.deploy(name, bundle, keep=endpoint.weights())
                endpoint.set_weights({name: 1.0})
            else:
                _round(endpoint, name, old, bundle, figures)
            old = name
    finally:
        for service in [path.name for path in (folder / "services").glob("*")]:
            endpoint.remove(service)
        endpoint.close()
    return figures


def _round(
    endpoint: LocalEndpoint, name: str, old: str, bundle: Bundle, figures: dict[str, list[float]]
) -> None:
    url = f"{endpoint.url}/predict"
    image = encode_png(bundle.predictor.golden.images[0])
    with Clients(url, image, {}, CLIENTS).asking() as clients:
        start = time.monotonic()
        endpoint.deploy(name, bundle, keep=endpoint.weights())
        started = time.monotonic()
        endpoint.set_weights({name: 1.0})
        switched = time.monotonic()
        endpoint.remove(old)
        clients.wait_for_answer_after(time.monotonic())
    figures["start_seconds"].append(started - start)
    figures["switch_seconds"].append(switched - started)
    figures["requests"].append(len(clients.answers))
    figures["lost_by_update"].append(clients.lost())
    running = endpoint.running(name)
    assert running is not None
    with Clients(url, image, {}, CLIENTS).asking() as clients:
        clients.wait_for_answer_after(time.monotonic())
        for worker in psutil.Process(running.pid).children():
            worker.kill()
        killed = time.monotonic()
        figures["back_seconds_after_kill"].append(clients.wait_for_answer_after(killed) - killed)
    figures["lost_by_kill"].append(clients.lost())


def main() -> int:
    """Measure, print and store the figures."""
    (rounds,) = parse_arguments(rounds=5)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="cv-factory-redeployment-") as directory:
        figures = measure(rounds, Path(directory))
    spreads = {name: asdict(Spread.of(values)) for name, values in figures.items()}
    content = {"name": "redeployment", "machine": machine, "spreads": spreads, "rounds": figures}
    save_result("redeployment", content)
    for name, values in figures.items():
        spread = Spread.of(values)
        sys.stdout.write(
            f"{name:<26}median {spread.median:8.2f}  {spread.min:8.2f} to {spread.max:8.2f}  "
            f"(n = {spread.n})\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
