"""Looks into a project's stores from outside, through ZenML's and MLflow's own clients."""

import json
from typing import Any

from tests.support.project import Project

_SNAPSHOT = """
import json
from zenml.client import Client

client = Client()
run = client.list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]
steps = {}
for name, step in run.steps.items():
    outputs = {}
    for output, versions in step.outputs.items():
        version = versions[0]
        outputs[output] = {
            "uri": version.uri,
            "materializer": version.materializer.import_path,
            "metadata": {k: str(v) for k, v in version.run_metadata.items()},
            "pictures": [picture.uri for picture in version.visualizations or []],
        }
    steps[name] = {"status": str(step.status), "outputs": outputs}
models = {}
for model in client.list_models().items:
    models[model.name] = [
        {
            "number": version.number,
            "stage": version.stage or "none",
            "metadata": {k: str(v) for k, v in version.run_metadata.items()},
            "artifacts": sorted(version.data_artifacts) + sorted(version.model_artifacts),
        }
        for version in client.list_model_versions(model=model.name, hydrate=True).items
    ]
print("SNAPSHOT" + json.dumps({
    "runs": client.list_pipeline_runs().total,
    "artifacts": client.list_artifact_versions().total,
    "status": str(run.status),
    "steps": steps,
    "models": models,
}))
"""
_MLFLOW = """
import json
from zenml.client import Client

Client().active_stack.experiment_tracker.configure_mlflow()
from mlflow import MlflowClient

client = MlflowClient()


def list_files(run_id, folder=None):
    listed = client.list_artifacts(run_id, folder)
    return [f.path for f in listed if not f.is_dir] + [
        path for f in listed if f.is_dir for path in list_files(run_id, f.path)
    ]


runs = [
    {"id": run.info.run_id, "params": run.data.params, "metrics": run.data.metrics,
     "tags": run.data.tags, "artifacts": list_files(run.info.run_id),
     "logged": {name: len(client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics}}
    for experiment in client.search_experiments()
    for run in client.search_runs([experiment.experiment_id])
]
models = {
    model.name: {
        "aliases": {k: str(v) for k, v in client.get_registered_model(model.name).aliases.items()},
        "versions": [
            {"version": str(v.version), "source": v.source, "run": v.run_id, "tags": v.tags}
            for v in client.search_model_versions(f"name = '{model.name}'")
        ],
    }
    for model in client.search_registered_models()
}
print("SNAPSHOT" + json.dumps({"runs": runs, "models": models}))
"""


def snapshot(project: Project) -> dict[str, Any]:
    """Return the newest run with its steps and outputs, and all model versions, from ZenML."""
    return _read(project, _SNAPSHOT)


def mlflow_snapshot(project: Project) -> dict[str, Any]:
    """Return runs and registered models from MLflow."""
    return _read(project, _MLFLOW)


def cached_steps(content: dict[str, Any]) -> set[str]:
    """Return the steps of a snapshot that were taken from the cache."""
    return {name for name, step in content["steps"].items() if step["status"] == "cached"}


def _read(project: Project, source: str) -> dict[str, Any]:
    lines = project.warm("-c", source).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("SNAPSHOT")]
    content: dict[str, Any] = json.loads(line.removeprefix("SNAPSHOT"))
    return content
