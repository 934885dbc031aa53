"""Reports of a candidate to the MLflow run that registers it.

The step ``register`` is never cached, so this run is whole also where every other step was:
settings, epochs, data quality, test metrics, pictures, reports and card.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cv_factory.artifacts.files import canonical_json
from cv_factory.data.validation.report import DataReport
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.registration import Registration
from cv_factory.evaluation.reports.evaluation_report import render_report
from cv_factory.evaluation.reports.model_card import CardContent
from cv_factory.reporting.page import Picture
from registry.candidate import RegistrationCandidate
from registry.mlflow.tracking import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

#: Step and parameter that hold each section of the configuration; ``model`` and ``train`` are those
#: that the candidate was trained with, which a search may have chosen.
_SECTIONS = {
    "data": ("ingest", "config"),
    "split": ("split", "config"),
    "validation": ("validate_data", "config"),
    "transform": ("fit_transform", "config"),
    "search": ("search", "config"),
    "calibration": ("export", "calibration"),
    "familiarity": ("export", "familiarity"),
    "export": ("export", "config"),
    "evaluate": ("register", "evaluate"),
    "gates": ("register", "gates"),
    "register": ("register", "config"),
}


def log_candidate(
    run_id: str, candidate: RegistrationCandidate, parameters: Mapping[str, Any]
) -> None:
    """Log what a candidate was made with and what was measured of it.

    Args:
        run_id: The MLflow run.
        candidate: The candidate.
        parameters: Parameters of the pipeline run's steps, by step.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client, now = MlflowClient(), int(1000 * time.time())
    metrics = test_metrics(candidate.evaluation) | data_metrics(candidate)
    hashes = candidate.predictor.contract.fingerprints
    client.log_batch(
        run_id,
        metrics=[
            *(Metric(name, value, now, 0) for name, value in metrics.items()),
            *_missing_epochs(client, run_id, candidate, now),
        ],
        params=[Param(name, text) for name, text in _settings(candidate, parameters).items()],
        tags=[
            RunTag("predictor", candidate.predictor.fingerprint),
            *(RunTag(f"{name}_fingerprint", sha256) for name, sha256 in hashes.items()),
        ],
    )
    report = candidate.report
    _log_files(
        client,
        run_id,
        {
            "data_report.html": report.to_html(),
            "data_report.json": canonical_json(asdict(report)),
        },
    )


def log_registration(run_id: str, content: CardContent, registration: Registration) -> None:
    """Log card and evaluation with each of their pictures, provenance, verdicts, and version."""
    from mlflow import MlflowClient
    from mlflow.entities import RunTag

    client = MlflowClient()
    version = f"{registration.model_name} {registration.version}"
    failed = [verdict.gate for verdict in registration.verdicts if verdict.status == "failed"]
    client.log_batch(
        run_id,
        tags=[RunTag("registered_version", version), RunTag("failed_gates", "; ".join(failed))],
    )
    _log_files(
        client,
        run_id,
        {
            "evaluation_report.html": render_report(content.evaluation, content.quality_sections),
            "model_card.html": registration.card_html,
            "model_card.md": registration.card_markdown,
            "provenance.json": canonical_json(dict(registration.provenance)),
            "gates.json": canonical_json([asdict(verdict) for verdict in registration.verdicts]),
            **name_pictures(content.all_pictures),
        },
    )


def test_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return the test metrics with their intervals, named ``test_NAME[_low|_high]``."""
    figures: dict[str, float | None] = {}
    for name, metric in evaluation.metrics.items():
        figures |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
    figures |= evaluation.behavior.figures()
    return {f"test_{name}": value for name, value in figures.items() if value is not None}


def data_metrics(candidate: RegistrationCandidate) -> dict[str, float]:
    """Return the sizes and the quality of the data, named ``data_NAME``."""
    report: DataReport = candidate.report
    verdicts = [expectation.verdict for expectation in report.expectations]
    counts = {
        "images": report.n_images,
        "classes": len(report.class_counts),
        "unreadable": len(report.unreadable),
        **{f"{part}_images": size for part, size in candidate.split.sizes.items()},
        "expectations_met": verdicts.count("passed"),
        "expectations_failed": verdicts.count("failed"),
        "expectations_warned": verdicts.count("warning"),
        **{f"offending_{e.name}": e.n_offending for e in report.expectations},
    }
    return {f"data_{name}": float(n) for name, n in counts.items()}


def _settings(candidate: RegistrationCandidate, parameters: Mapping[str, Any]) -> dict[str, str]:
    sections = {
        section: parameters[step][name]
        for section, (step, name) in _SECTIONS.items()
        if name in parameters.get(step, {})
    }
    effective = {"model": candidate.trained.config, "train": candidate.settings}
    settings = flatten(sections | {n: s.model_dump(mode="json") for n, s in effective.items()})
    # The configuration may leave it to the data.
    return settings | {"transform.pca.n_components": str(candidate.predictor.contract.n_features)}


def _missing_epochs(
    client: "MlflowClient", run_id: str, candidate: RegistrationCandidate, now: int
) -> Iterator["Metric"]:
    """Yield the metrics of the epochs, unless the step ``train`` logged them to the same run."""
    from mlflow.entities import Metric

    logged = client.get_run(run_id).data.metrics
    for epoch, row in enumerate(candidate.trained.history, start=1):
        yield from (Metric(n, v, now, epoch) for n, v in row.items() if n not in logged)


def _log_files(client: "MlflowClient", run_id: str, files: Mapping[str, str | bytes]) -> None:
    """Log files by path, in one upload."""
    with TemporaryDirectory(prefix="cv-factory-") as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        client.log_artifacts(run_id, folder)


def name_pictures(pictures: Iterable[Picture]) -> dict[str, bytes]:
    """Return PNGs by path, made of their captions; a number tells equal names apart.

    What is not an ASCII letter or digit, such as in the name of a class, becomes ``_``.
    """
    named: dict[str, bytes] = {}
    for picture in pictures:
        text = "".join(c if c.isascii() and c.isalnum() else " " for c in picture.caption.lower())
        stem = "_".join(text.split())[:60] or "picture"
        paths = (f"plots/{stem}{suffix}.png" for suffix in chain([""], map("_{}".format, count(2))))
        named[next(path for path in paths if path not in named)] = picture.png
    return named
