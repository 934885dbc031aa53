"""Imports of the model deployers in ZenML's own commands."""

import sys
from pathlib import Path

import pytest

from stacks.flavors.bundle_deployer import _add_project_to_path

ROOT = Path(__file__).resolve().parents[3]


def test_the_project_is_importable_where_only_zenml_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in `zenml model-deployer models delete`, whose audit entry failed on `registry`.
    monkeypatch.setattr(
        sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    )
    _add_project_to_path()
    assert str(ROOT) in sys.path
