import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cv_factory import code_fingerprint as module
from cv_factory.code_fingerprint import code_fingerprint, source_files
from tests.support.paths import ROOT

SECTIONS = sorted(path.stem for path in (ROOT / "cv_factory/config").glob("[!_]*.py"))
ALL = {"ingest", "split", "export_backbone", "compute_features", "find_data_issues",
       "validate_data", "fit_transform", "search", "train", "fine_tune", "export_float", "export",
       "evaluate", "build_reference"}  # fmt: skip
MODEL = {"search", "train", "fine_tune", "export_float", "export"}
#: The cached steps that a file of ``config/`` makes stale; no step for those that are not listed.
STALE = {
    "data": {"ingest"},
    "split": {"split"},
    "validation": {"validate_data"},
    "transform": {"fit_transform", "search", "fine_tune"},
    "features": {"fine_tune"},
    "model": MODEL,
    "model_section": MODEL,
    "plugins": MODEL | {"ingest", "export_backbone", "evaluate", "build_reference"},
    "suggestion": MODEL | {"ingest", "export_backbone", "evaluate", "build_reference"},
    "secrets": {"ingest"},
    "train": {"search", "train", "fine_tune"},
    "search": {"search"},
    "export": {"export_float", "export"},
    "evaluate": {"evaluate", "build_reference"},
    "section": ALL - {"export_backbone", "compute_features", "find_data_issues"},
}


def cached_steps() -> dict[str, list[str]]:
    """Return the modules that each cached step depends on, read off its source: no ZenML."""
    steps = {}
    for file in (ROOT / "steps").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "depends_on":
                steps[file.stem] = [ast.literal_eval(argument) for argument in node.args]
    return steps


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(ROOT / "cv_factory", tmp_path / "cv_factory")
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    module._dependencies.cache_clear()
    yield tmp_path
    module._dependencies.cache_clear()


def stale_steps(before: dict[str, str]) -> set[str]:
    return {name for name, key in keys().items() if key != before[name]}


def keys() -> dict[str, str]:
    return {name: code_fingerprint(*modules) for name, modules in cached_steps().items()}


def test_direct_and_indirect_imports_are_followed() -> None:
    files = source_files("cv_factory.transforms.fitted")
    assert "cv_factory/transforms/pca.py" in files
    assert "cv_factory/errors.py" in files, "pca imports it"


def test_imports_inside_functions_are_followed() -> None:
    assert "cv_factory/training/network.py" in source_files("cv_factory.training.train")


def test_modules_started_with_m_are_followed() -> None:
    files = source_files("cv_factory.training.train")
    assert "cv_factory/training/distributed/worker.py" in files
    assert "cv_factory/training/distributed/node_agent.py" in files
    assert "cv_factory/training/search/trial_worker.py" in source_files(
        "cv_factory.training.search.study"
    )


def test_modules_started_with_m_are_declared() -> None:
    declared, started = set(), set()
    files = [*(ROOT / "cv_factory").rglob("*.py"), *(ROOT / "stacks").rglob("*.py")]
    for file in files:
        text = file.read_text()
        started |= set(re.findall(r'"-m",\s*"(cv_factory[\w.]*)"', text)) - {"cv_factory.serving"}
        for names in re.findall(r"^ENTRY_POINTS\b[^(]*\(([^)]*)\)", text, flags=re.MULTILINE):
            declared |= set(re.findall(r'"([\w.]+)"', names))
    assert len(declared) == 5
    assert started <= declared


def test_plugins_are_followed() -> None:
    files = source_files("cv_factory.training.train")
    assert {"cv_factory/models/mlp.py", "cv_factory/models/_layers.py"} <= set(files)


def test_plugins_that_are_packages_are_followed(copy: Path) -> None:
    package = copy / "cv_factory/models/perceptron"
    package.mkdir()
    (package / "__init__.py").write_text("from cv_factory.models.perceptron import layers\n")
    (package / "layers.py").write_text("")
    files = source_files("cv_factory.models")
    assert "cv_factory/models/perceptron/__init__.py" in files
    assert "cv_factory/models/perceptron/layers.py" in files


def test_only_the_else_of_a_check_for_typing_is_followed(copy: Path) -> None:
    (copy / "cv_factory/processes/launcher.py").write_text(
        "if TYPE_CHECKING:\n    import cv_factory.errors\nelse:\n    import cv_factory.cpu\n"
    )
    files = source_files("cv_factory.processes.launcher")
    assert files == ("cv_factory/cpu.py", "cv_factory/processes/launcher.py")


def test_plots_are_no_part_of_training_or_fitting() -> None:
    files = source_files("cv_factory.training.train", "cv_factory.transforms.fitted")
    assert not [name for name in files if "evaluation" in name]


def test_training_depends_on_the_pca() -> None:
    assert "cv_factory/transforms/pca.py" in source_files("cv_factory.training.train")


def test_the_code_fingerprint_differs_between_entry_points() -> None:
    one, other = (code_fingerprint(f"cv_factory.{m}") for m in ("data.split", "data.decode"))
    assert one != other
    assert one == code_fingerprint("cv_factory.data.split")


def test_every_cached_step_is_covered() -> None:
    assert set(cached_steps()) == ALL
    assert set(STALE) <= set(SECTIONS)


def test_editing_a_section_makes_only_the_steps_that_read_it_stale(copy: Path) -> None:
    before = keys()
    for section in SECTIONS:
        file = copy / "cv_factory" / "config" / f"{section}.py"
        text = file.read_text()
        file.write_text(text.replace("description=", "description='' or ") + "# edited\n")
        assert stale_steps(before) == STALE.get(section, set()), section
        file.write_text(text)


def test_adding_a_model_makes_neither_data_nor_transform_stale(copy: Path) -> None:
    before = keys()
    (copy / "cv_factory/models/perceptron.py").write_text('"""A new model."""\n')
    module._dependencies.cache_clear()
    assert stale_steps(before) == MODEL


def test_editing_a_worker_makes_the_steps_that_start_it_stale(copy: Path) -> None:
    before = keys()
    with (copy / "cv_factory/training/distributed/worker.py").open("a") as file:
        file.write("# edited\n")
    assert stale_steps(before) == {"search", "train", "fine_tune"}


def test_a_predictor_s_code_fingerprint_ignores_what_cannot_change_it(copy: Path) -> None:
    from cv_factory.export.fingerprints import _ROOT_MODULES

    before = code_fingerprint(*_ROOT_MODULES)
    for section in ("search", "evaluate", "serving", "gates", "loader", "register", "deployment"):
        with (copy / "cv_factory/config" / f"{section}.py").open("a") as file:
            file.write("# edited\n")
        assert code_fingerprint(*_ROOT_MODULES) == before, section


def test_entry_points_must_be_literals(copy: Path) -> None:
    (copy / "cv_factory/processes/launcher.py").write_text("ENTRY_POINTS = (f'{__name__}.x',)\n")
    with pytest.raises(ValueError, match="malformed node"):
        source_files("cv_factory.processes.launcher")
