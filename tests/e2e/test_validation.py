"""The validation pipeline as its user runs it: verdict, exit code, and the report that stays."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.commands import run_all
from tests.support.images import encode, write_class_folders
from tests.support.project import Project
from tests.support.store import snapshot

_REPORTS = """
import json
from zenml.client import Client

client = Client()
reports = client.list_artifact_versions(artifact="data_report", sort_by="asc:created", hydrate=True)
for version in reports.items:
    report = version.load()
    pictures = [picture.uri for picture in version.visualizations or []]
    print("REPORT" + json.dumps({
        "ok": report.ok, "failed": [r.name for r in report.failures], "pictures": pictures,
    }))
client.active_stack.experiment_tracker.configure_mlflow()
from mlflow import MlflowClient

mlflow = MlflowClient()
for experiment in mlflow.search_experiments():
    for run in mlflow.search_runs([experiment.experiment_id]):
        print("LOGGED" + ",".join(a.path for a in mlflow.list_artifacts(run.info.run_id)))
"""


def validation(folder: Path, *settings: str) -> list[str]:
    chosen = ("data.source=folder", f"data.path={folder}", "data.max_unreadable_share=0.1")
    words = [word for setting in (*chosen, *settings) for word in ("--set", setting)]
    return ["--pipeline", "validation", *words]


def lines(output: str, mark: str) -> list[str]:
    matches = [line for line in output.splitlines() if line.startswith(mark)]
    return [line.removeprefix(mark) for line in matches]


def test_good_images_pass_and_bad_ones_stop_with_a_report(
    project: Project, tmp_path: Path
) -> None:  # fmt: skip
    write_class_folders(tmp_path / "pets")
    (tmp_path / "pets" / "disc" / "broken.png").write_bytes(b"not an image")
    first = (tmp_path / "pets" / "disc" / "000.png").read_bytes()
    (tmp_path / "pets" / "stripe" / "same.png").write_bytes(first)
    strict = validation(tmp_path / "pets", "validation.severity.label_conflicts=error")
    good, planned, refused = run_all(
        project,
        validation(tmp_path / "pets"),
        [*validation(tmp_path / "pets"), "--dry-run"],
        strict,
    )
    assert good.code == 0, good.output
    assert "Passed with 2 warnings: 61 images in 2 classes" in good.output
    assert "1 images left out as unreadable" in good.output
    assert "warning: Images with the same pixels have the same label. Found 2 of 61" in good.output

    states = dict(re.findall(r"│ (\w+)\s+│.*│ (cached|to be run)\s+│", planned.output))
    assert states == {"ingest": "cached", "split": "cached", "validate_data": "cached"}
    assert "Nothing was changed (--dry-run)." in planned.output

    assert refused.code == 3, refused.output
    assert "label_conflicts" in refused.output
    assert "disc/000.png, stripe/same.png" in refused.output
    assert "Traceback" not in refused.output
    assert snapshot(project)["status"] == "failed"

    output = project.warm("-c", _REPORTS).stdout
    passed, failed = lines(output, "REPORT")
    assert '"ok": true' in passed
    assert '"ok": false' in failed
    page = Path(re.findall(r'"([^"]+report\.html)"', failed)[0]).read_text()
    assert "stripe/same.png" in page
    assert "data:image/png;base64," in page, "the offending images are shown"
    assert "://" not in re.sub(r"http://www\.w3\.org/\S+", "", page), "it needs no network"
    assert lines(output, "LOGGED") == ["data_report.html,data_report.json"] * 2


def test_images_are_compared_with_a_stored_dataset(project: Project, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "before")
    write_class_folders(tmp_path / "after")
    for number in range(12):
        white = Image.fromarray(np.full((12, 12, 3), 240 + number, np.uint8))
        (tmp_path / "after" / "disc" / f"white{number}.png").write_bytes(encode(white))
    write_class_folders(tmp_path / "other")
    (tmp_path / "other" / "disc").rename(tmp_path / "other" / "ring")
    by_name = "validation.reference=dataset"
    before, alike, after, other, nothing, report = run_all(
        project,
        validation(tmp_path / "before"),
        validation(tmp_path / "before", by_name),
        validation(tmp_path / "after", by_name, "validation.max_reference_shift=0.1"),
        validation(tmp_path / "other", by_name),
        validation(tmp_path / "before", "validation.reference=nowhere"),
        validation(tmp_path / "before", "validation.reference=data_report"),
    )
    assert before.code == alike.code == after.code == 0, after.output
    assert "reference's" not in alike.output
    assert "Mean brightness, contrast and sharpness are near the reference's" in after.output
    assert other.code == 3, other.output
    assert "labels_as_reference" in other.output
    assert "ring" in other.output
    assert nothing.code == report.code == 2
    assert "there is no stored dataset 'nowhere'" in nothing.output
    assert "'data_report' is a DataReport, no dataset" in report.output
