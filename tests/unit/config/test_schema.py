import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cli.pipeline_config import file_schema
from tests.support.paths import ROOT
from tools import schema as tool


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = json.loads((ROOT / "configs/schema/training.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("name", tool.NAMES)
def test_the_stored_schema_is_up_to_date(name: str) -> None:
    stored = ROOT / "configs" / "schema" / f"{name}.schema.json"
    assert stored.read_text() == tool.schema_text(name), "run: make schema"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.name
)
def test_our_own_configurations_fulfil_it(file: Path) -> None:
    name = next((n for n in tool.NAMES if file.stem.startswith(n)), "training")
    jsonschema.Draft7Validator(json.loads(tool.schema_text(name))).validate(_read(file))


@pytest.mark.parametrize(
    ("config", "accepted"),
    [
        ({}, True),
        ({"model": {"name": "logistic_regression", "C": 0.5}}, True),
        ({"model": {"name": "logistic_regression", "dropout": 0.5}}, False),
        ({"model": {"dropout": 0.5}}, False),
        ({"trian": {}}, False),
        ({"train": {"epochs": 0}}, False),
        ({"train": {"epochs": "three"}}, False),
        ({"train": {"precision": "fp8"}}, False),
        ({"split": {"test": 1.0}}, False),
        ({"gates": [{"metric": "accuracy", "min": 0.9}]}, True),
        ({"gates": [{"metric": "speed", "min": 0.9}]}, False),
        ({"zenml": {"resources": {"train": {"memory": "4 gigs"}}}}, False),
    ],
)
def test_it_accepts_and_refuses_what_the_real_check_does(
    config: dict[str, Any], accepted: bool, validator: jsonschema.Draft7Validator
) -> None:
    assert validator.is_valid(config) == accepted
    try:
        file_schema("training").model_validate(config)
    except ValueError:
        assert not accepted
    else:
        assert accepted


def test_hovering_shows_the_default_and_no_generated_title() -> None:
    section = json.loads(tool.schema_text("training"))["$defs"]["TrainConfig"]
    assert section["properties"]["epochs"]["description"] == "default: 9"
    assert "title" not in section
    assert "title" not in section["properties"]["epochs"]


def test_check_names_a_stale_file_and_writing_cures_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "DIRECTORY", tmp_path)
    (tmp_path / "gone.schema.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["schema", "--check"])
    assert tool.main() == 1
    message = capsys.readouterr().err
    assert (
        "gone.schema.json, loop.schema.json, monitoring.schema.json, training.schema.json"
        in message
    )
    assert message.endswith("Run: make schema\n")
    monkeypatch.setattr("sys.argv", ["schema"])
    assert tool.main() == 0
    monkeypatch.setattr("sys.argv", ["schema", "--check"])
    assert tool.main() == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"{name}.schema.json" for name in tool.NAMES)


def _read(file: Path) -> Any:
    """Read YAML 1.2 numbers, as editors do; PyYAML takes 4e-3 for text."""

    class Loader(yaml.SafeLoader):
        pass

    pattern = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", pattern, list("-+0123456789."))
    return yaml.load(file.read_text(), Loader) or {}
