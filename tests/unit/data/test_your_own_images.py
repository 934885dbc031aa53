"""The page docs/your-own-images.md: its commands are read and run, its YAML is checked."""

import re
import shlex
import sqlite3
from pathlib import Path
from typing import cast

import pytest

from cli.pipeline_config import file_schema
from cv_factory.config.loader import load_config
from cv_factory.config.training import TrainingPipelineConfig, ValidationPipelineConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.data.validation.great_expectations import validate_dataset
from tests.support.images import write_class_folders
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "your-own-images.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "pets", per_class=30)
    (tmp_path / "flat").mkdir()
    files = sorted((tmp_path / "pets").rglob("*.png"))
    rows = []
    with sqlite3.connect(tmp_path / "pets.db") as connection:
        connection.execute("CREATE TABLE pictures (n INTEGER PRIMARY KEY, kind, pixels BLOB)")
        for n, file in enumerate(files):
            content, kind = file.read_bytes(), file.parent.name
            part = tmp_path / "parts" / ("test" if n % 5 == 0 else "train") / kind
            part.mkdir(parents=True, exist_ok=True)
            (part / file.name).write_bytes(content)
            (tmp_path / "flat" / f"{kind}_{n // 2}_{n}.png").write_bytes(content)
            connection.execute("INSERT INTO pictures VALUES (?, ?, ?)", (n, kind, content))
            rows.append((f"{kind}/{file.name}", kind))
    connection.close()
    (tmp_path / "labels.csv").write_text(
        "image_path,label\n" + "".join(f"pets/{path},{kind}\n" for path, kind in rows)
    )
    (tmp_path / "other.csv").write_text(
        "file,kind\n" + "".join(f"{path},{kind}\n" for path, kind in rows)
    )
    monkeypatch.chdir(tmp_path)


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.usefixtures("_working_folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(command: str) -> None:
    words = shlex.split(command)
    assert words[:3] == ["python", "run.py", "--pipeline"]
    pipeline, options = words[3], words[4:]
    pairs = list(zip(options[::2], options[1::2], strict=True))
    overrides = [value for name, value in pairs if name == "--set"]
    files = [ROOT / value for name, value in pairs if name == "--config"]
    file = files[0] if files else ROOT / "configs" / f"{pipeline}.yaml"
    loaded = load_config(file_schema(pipeline), file, overrides=overrides)
    config = cast(TrainingPipelineConfig | ValidationPipelineConfig, loaded)
    if files:
        return  # 70,000 images: the benchmarks run it
    dataset = ingest(config.data)
    assert dataset.class_counts == {"disc": 30, "stripe": 30}
    assert not dataset.unreadable
    split = split_dataset(dataset, config.split)
    validate_dataset(
        dataset.manifest,
        class_names=dataset.class_names,
        split=dict(split.items()),
        config=config.validation,
        images=dataset.images,
    ).require_ok()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_yaml_of_the_page_is_valid(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    load_config(file_schema("validation"), file)
