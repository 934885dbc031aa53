"""Metrics of jobs that end before Prometheus could ask them, as files for a textfile collector.

Prometheus' node_exporter (``--collector.textfile.directory``) reads each ``*.prom`` of a folder at
each scrape.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cv_factory.artifacts.files import write_atomic

#: Names the folder; nothing is written where it is not set.
FOLDER_VARIABLE = "CV_FACTORY_METRICS_FOLDER"


def metrics_folder() -> Path | None:
    """Return the folder that the environment names, None where it names none."""
    name = os.environ.get(FOLDER_VARIABLE)
    return Path(name).expanduser() if name else None


def write_metrics(folder: Path, name: str, registry: CollectorRegistry) -> Path:
    """Write all metrics of a registry as ``NAME.prom``, whole or not at all, and return its path.

    Two files of a folder must not hold one metric with the same labels: name the file after what
    its labels name, such as ``cv_factory_monitor_digits``.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _file(folder, name)
    # The collector runs as another user, and reads nothing of what the umask hides.
    write_atomic(path, generate_latest(registry), mode=0o644)
    return path


def read_metric(
    folder: Path, name: str, metric: str, labels: Mapping[str, str] | None = None
) -> float | None:
    """Return the value that ``NAME.prom`` holds of a metric; None where there is none.

    Args:
        folder: Where ``write_metrics`` wrote.
        name: Name of the file, without its ending.
        metric: Name of the sample, such as ``cv_factory_pipeline_runs_total``.
        labels: All labels of the sample.
    """
    path = _file(folder, name)
    if not path.is_file():
        return None
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    samples = (sample for family in families for sample in family.samples)
    matches = (s.value for s in samples if s.name == metric and s.labels == dict(labels or {}))
    return next(matches, None)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.prom"
