"""Reports of the running step to the stack's MLflow tracker."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from cv_factory.data.validation.report import DataReport
    from cv_factory.monitoring.report import MonitoringReport
    from cv_factory.training.search.result import Trial

#: Metadata key of an MLflow run: a version names that of its registration, a trained model that of
#: its training.
MLFLOW_RUN_KEY = "mlflow_run_id"


def active_run_id() -> str:
    """Return the id of the MLflow run that ZenML opened for this step; empty if there is none."""
    import mlflow

    run = mlflow.active_run()
    return run.info.run_id if run else ""


def log_settings(sections: Mapping[str, BaseModel]) -> None:
    """Log configuration sections as MLflow parameters named ``section.key``.

    Settings that are left open are not logged: training may choose them, and a parameter of MLflow
    cannot be changed.
    """
    import mlflow

    given = {n: s.model_dump(mode="json", exclude_none=True) for n, s in sections.items()}
    mlflow.log_params(flatten(given))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as text by ``section.key``; a list is one text."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def log_epoch(epoch: int, metrics: dict[str, float]) -> None:
    """Log the metrics of one epoch."""
    import mlflow

    mlflow.log_metrics(metrics, step=epoch)


def log_report(report: "DataReport") -> None:
    """Log a data report, as a page and as JSON, to the MLflow run of the step."""
    from dataclasses import asdict

    import mlflow

    mlflow.log_text(report.to_html(), "data_report.html")
    mlflow.log_dict(asdict(report), "data_report.json")


def log_monitoring_report(report: "MonitoringReport") -> None:
    """Log a monitoring report, as pages, as JSON and as metrics, to the MLflow run of the step."""
    import mlflow

    from cv_factory.monitoring.report_page import render_report

    mlflow.log_text(render_report(report), "monitoring_report.html")
    for name, page in report.evidently_pages.items():
        mlflow.log_text(page, f"{name}.html")
    mlflow.log_dict(report.to_dict(), "monitoring_report.json")
    mlflow.set_tags({"status": report.status, "recommendation": report.recommendation.action})
    estimates = {f"estimate_{e.estimator}": e.accuracy for e in report.estimates}
    counts = {"n_predictions": report.n_predictions, "n_labels": report.n_labels}
    mlflow.log_metrics({**counts, **estimates})


def log_trial(trial: "Trial") -> None:
    """Log a trial of a search as a run of its own, below the run of the step."""
    import mlflow

    name = f"trial {trial.number + 1}: {trial.family}"
    with mlflow.start_run(run_name=name, nested=True):
        mlflow.log_params({"family": trial.family, **trial.values})
        mlflow.set_tags({"state": trial.state, "reason": trial.reason})
        if trial.score is not None:
            mlflow.log_metrics({"score": trial.score, "seconds": trial.seconds})
        for fold, score in enumerate(trial.fold_scores):
            mlflow.log_metric("fold_score", score, step=fold)
