"""``run.py labels``: what is refused before anything is read."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cli.commands.labels import command
from cv_factory.errors import ConfigError


def test_what_to_label_is_written_where_additional_data_finds_the_images(tmp_path: Path) -> None:
    for name in ("new", "other"):
        (tmp_path / name).mkdir()
    file = tmp_path / "other" / "next.csv"
    words = ["next", "--from", str(tmp_path / "new"), "--out", str(file)]
    with pytest.raises(ConfigError, match=f"give --out {tmp_path / 'next.csv'}"):
        CliRunner().invoke(command, words, catch_exceptions=False)


def test_beside_a_rollback_the_version_that_was_in_production_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is archived already, and the next one is not yet in production."""
    registry = SimpleNamespace(
        model_name="pets",
        stages=lambda: {1: "archived", 2: "archived", 3: "staging"},
        settled_stages=lambda: {1: "archived", 2: "production", 3: "staging"},
        get_version=lambda number: number,
    )
    selection = SimpleNamespace(write_csv=lambda *_: None, images=(), n_images=0, unreadable=())
    monkeypatch.setattr("cli.commands.labels.open_registry", lambda *_, **__: registry)
    monkeypatch.setattr("registry.versions.load_predictor", lambda version: version)
    monkeypatch.setattr("cv_factory.curation.label_selection.rank_folder", lambda *_: selection)
    words = ["next", "--from", str(tmp_path), "--out", str(tmp_path / "next.csv")]
    result = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    assert "by pets version 2" in result.output
