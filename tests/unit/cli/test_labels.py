"""``run.py labels``: what is refused before anything is read."""

from pathlib import Path

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
