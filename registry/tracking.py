"""What the running training step reports to the stack's MLflow tracker."""

from collections.abc import Mapping

from pydantic import BaseModel

#: Metadata key under which the train step stores its MLflow run.
MLFLOW_RUN_KEY = "mlflow_run_id"


def active_run_id() -> str:
    """Return the id of the MLflow run that ZenML opened for this step; empty if there is none."""
    import mlflow

    run = mlflow.active_run()
    return run.info.run_id if run else ""


def log_settings(sections: Mapping[str, BaseModel]) -> None:
    """Log configuration sections as MLflow parameters named ``section.key``."""
    import mlflow

    mlflow.log_params(
        {
            f"{name}.{key}": value
            for name, section in sections.items()
            for key, value in section.model_dump(mode="json").items()
        }
    )


def log_epoch(epoch: int, metrics: dict[str, float]) -> None:
    """Log the metrics of one epoch."""
    import mlflow

    mlflow.log_metrics(metrics, step=epoch)
