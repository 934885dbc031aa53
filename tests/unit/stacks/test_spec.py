"""Stack files: inheritance, variables, secrets, and errors that name file, key and cure."""

from pathlib import Path

import pytest

from cv_factory.errors import StackError
from stacks.spec import STACKS_DIR, ComponentSpec, read_spec, stack_names, whole_secret_reference

_BASE = """\
# A base.
components:
  orchestrator: {name: base_local, flavor: local}
  artifact_store:
    name: base_store
    flavor: local
    configuration: {path: "${STORE_PATH}"}
environment: {A: "1", B: "2"}
secrets:
  tokens: {key: "${TOKEN}"}
"""


def _write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)


def _refusal(directory: Path, text: str, **environment: str) -> str:
    _write(directory, case=text)
    with pytest.raises(StackError) as caught:
        read_spec("case", directory=directory, environment=environment)
    return str(caught.value)


@pytest.mark.parametrize("name", stack_names())
def test_every_stack_file_of_the_project_is_valid(name: str) -> None:
    class AnyVariable(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return "value"

        def get(self, key: str, default: object = None) -> str:
            return "value"

    spec = read_spec(name, environment=AnyVariable())
    assert spec.name == name
    comment = (STACKS_DIR / f"{name}.yaml").read_text().splitlines()[0]
    assert comment.startswith("# "), "the first line says what the stack is, for 'list'"


def test_local_has_every_component_that_the_pipelines_need() -> None:
    from stacks.check import REQUIRED_COMPONENTS

    spec = read_spec("local", environment={})
    optional = {"model_deployer", "model_registry"}
    assert {*REQUIRED_COMPONENTS, *optional} == set(spec.components)
    assert {part.flavor for part in spec.components.values()} == {
        "local", "mlflow", "gx", "launcher", "bento",
    }  # fmt: skip
    assert all(part.name.startswith("cv_factory_") for part in spec.components.values())


def test_a_child_replaces_whole_components_and_single_variables(tmp_path: Path) -> None:
    child = """\
extends: base
components:
  artifact_store: {name: child_store, flavor: s3}
environment: {B: "3", C: "4"}
"""
    _write(tmp_path, base=_BASE, child=child)
    spec = read_spec("child", directory=tmp_path, environment={"TOKEN": "t"})
    assert spec.name == "child"
    assert spec.components["orchestrator"].name == "base_local"
    assert spec.components["artifact_store"] == ComponentSpec(name="child_store", flavor="s3")
    assert spec.environment == {"A": "1", "B": "3", "C": "4"}
    assert spec.secrets["tokens"]["key"].get_secret_value() == "t"


def test_variables_that_a_child_replaces_are_not_needed(tmp_path: Path) -> None:
    child = """\
extends: base
components:
  artifact_store: {name: child_store, flavor: local}
secrets:
  tokens: {key: fixed}
"""
    _write(tmp_path, base=_BASE, child=child)
    assert "artifact_store" in read_spec("child", directory=tmp_path, environment={}).components


def test_all_missing_variables_are_named_at_once(tmp_path: Path) -> None:
    message = _refusal(tmp_path, _BASE)
    assert "STORE_PATH, TOKEN" in message
    assert "export STORE_PATH=..." in message
    assert "case.yaml" in message


def test_an_empty_variable_counts_as_missing(tmp_path: Path) -> None:
    assert "TOKEN" in _refusal(tmp_path, _BASE, STORE_PATH="/s", TOKEN="")


def test_a_default_stands_for_a_variable_that_is_not_set_or_empty(tmp_path: Path) -> None:
    text = _BASE.replace("${STORE_PATH}", "${STORE_PATH:-/here}")
    _write(tmp_path, base=text)
    for given, expected in (
        ({}, "/here"),
        ({"STORE_PATH": ""}, "/here"),
        ({"STORE_PATH": "/s"}, "/s"),
    ):
        spec = read_spec("base", directory=tmp_path, environment={"TOKEN": "t", **given})
        assert spec.components["artifact_store"].configuration == {"path": expected}
    empty = _BASE.replace("${STORE_PATH}", "${STORE_PATH:-}")
    _write(tmp_path, base=empty)
    spec = read_spec("base", directory=tmp_path, environment={"TOKEN": "t"})
    assert spec.components["artifact_store"].configuration == {"path": ""}


def test_a_variable_cannot_smuggle_in_keys(tmp_path: Path) -> None:
    _write(tmp_path, base=_BASE)
    value = "x\n    flavor: other"
    spec = read_spec("base", directory=tmp_path, environment={"STORE_PATH": value, "TOKEN": "t"})
    assert spec.components["artifact_store"].flavor == "local"
    assert spec.components["artifact_store"].configuration == {"path": value}


def test_secret_values_are_never_shown(tmp_path: Path) -> None:
    _write(tmp_path, base=_BASE)
    environment = {"STORE_PATH": "/s", "TOKEN": "hush-hush"}
    spec = read_spec("base", directory=tmp_path, environment=environment)
    assert "hush-hush" not in repr(spec) + str(spec) + spec.model_dump_json()
    wrong = _BASE.replace('key: "${TOKEN}"', 'key: ["${TOKEN}"]')
    assert "hush-hush" not in _refusal(tmp_path, wrong, **environment)


def test_a_yaml_error_names_the_line_and_does_not_quote_it(tmp_path: Path) -> None:
    message = _refusal(tmp_path, "secrets:\n  a: {key: hush-hush\ncomponents: [")
    assert "case.yaml, line 3" in message
    assert "hush-hush" not in message


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("flavor: local}", "flavour: local}", "unknown key 'components.orchestrator.flavour'. Did"),
        ("environment:", "environments:", "unknown key 'environments'. Did you mean 'environment'"),
        ("  orchestrator:", "  orchestrater:", "Did you mean 'orchestrator'"),
        ("  orchestrator: {name: base_local, flavor: local}\n", "", "components.orchestrator: mis"),
        ("name: base_local, ", "", "components.orchestrator.name: must be given"),
        ('A: "1"', "A: 1", "environment.A: must be text"),
        ("name: base_local", "name: a b", "components.orchestrator.name: must match"),
        ("environment: {", "environment: [{", "case.yaml"),
        ("# A base.", "extends: nowhere", "no stack file"),
        ("# A base.", "extends: case", "extend each other: case -> case"),
        ("# A base.", "extends: [case]", "extends must be the name"),
    ],
)
def test_mistakes_are_named_with_file_and_key(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    assert before in _BASE
    message = _refusal(tmp_path, _BASE.replace(before, after), STORE_PATH="/s", TOKEN="t")
    assert expected in message
    assert ".yaml" in message or "extend each other" in message


def test_a_setting_in_both_places_is_refused(tmp_path: Path) -> None:
    text = _BASE.replace(
        'configuration: {path: "${STORE_PATH}"}',
        "configuration: {path: a}\n    settings: {path: b}",
    )
    assert "path: given in both" in _refusal(tmp_path, text, TOKEN="t")


def test_settings_are_part_of_what_zenml_stores() -> None:
    part = ComponentSpec(name="a", flavor="b", configuration={"x": 1}, settings={"y": 2})
    assert part.full_configuration == {"x": 1, "y": 2}


def test_a_reference_to_a_key_that_its_secret_lacks(tmp_path: Path) -> None:
    text = _BASE.replace('"${STORE_PATH}"', '"{{tokens.password}}"')
    message = _refusal(tmp_path, text, TOKEN="t")
    assert "{{tokens.password}}" in message
    assert "only the keys key" in message


def test_references_are_found_wherever_they_stand(tmp_path: Path) -> None:
    text = _BASE.replace('"${STORE_PATH}"', '{a: ["x {{ one.k }}", "{{tokens.key}}"]}')
    _write(tmp_path, base=text)
    spec = read_spec("base", directory=tmp_path, environment={"TOKEN": "t"})
    assert spec.secret_references == {("one", "k"), ("tokens", "key")}
    assert whole_secret_reference("{{one.k}}") == ("one", "k")
    assert whole_secret_reference("x {{one.k}}") is None
    assert whole_secret_reference(3) is None


def test_an_unknown_stack_names_the_known_ones(tmp_path: Path) -> None:
    _write(tmp_path, local=_BASE)
    with pytest.raises(StackError, match="Did you mean 'local'"):
        read_spec("locl", directory=tmp_path, environment={})
