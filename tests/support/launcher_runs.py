"""Runs ``launcher_pipeline.py`` in a project, and reads what it reports."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.support.project import Project

_SCRIPT = Path(__file__).with_name("launcher_pipeline.py")


def result(output: str) -> Any:
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert lines, output
    return json.loads(lines[-1].removeprefix("RESULT "))


def command(project: Project, *arguments: str) -> list[str]:
    shutil.copy(_SCRIPT, project.root)
    return [sys.executable, _SCRIPT.name, *arguments]
