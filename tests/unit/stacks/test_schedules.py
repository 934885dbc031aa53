"""The examples of schedules say what they are to say, as far as it can be checked here."""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

_FOLDER = ROOT / "stacks" / "schedules"


def test_cron_runs_a_tick_in_the_project() -> None:
    (line,) = [
        line
        for line in (_FOLDER / "crontab").read_text().splitlines()
        if line and line[0] not in "#S"
    ]
    *times, command = line.split(maxsplit=5)
    assert times == ["*/15", "*", "*", "*", "*"]
    assert shlex.split(command)[:5] == ["cd", "/opt/cv-factory", "&&", ".venv/bin/python", "run.py"]
    subprocess.run(["sh", "-n", "-c", command], check=True)


def test_kubernetes_runs_one_tick_at_a_time_and_none_again() -> None:
    job = yaml.safe_load((_FOLDER / "kubernetes-cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    template = job["spec"]["jobTemplate"]["spec"]
    assert template["backoffLimit"] == 0
    pod = template["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["command"] == ["python", "run.py", "tick"]


@pytest.mark.engines
def test_systemd_accepts_service_and_timer(tmp_path: Path) -> None:
    for file in _FOLDER.glob("cv-factory-tick.*"):
        # systemd checks that the program is there.
        text = file.read_text().replace("/opt/cv-factory/.venv/bin/python", "/bin/true")
        (tmp_path / file.name).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    checked = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=True
    )
    assert checked.stderr == ""
