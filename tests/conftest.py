"""Keeps tests from the user's ZenML and MLflow; marks and orders them; golden files, engines."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.paths import ROOT

_SCRATCH = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_ENVIRONMENT = pytest.StashKey[dict[str, str]]()
#: What ZenML, MLflow and Great Expectations leave in a project that is used without settings.
_LEFTOVERS = (".zen", "mlruns", "mlflow.db", "mlartifacts", "gx")


def pytest_configure(config: pytest.Config) -> None:
    """Point this process, before any test module is imported, at a scratch folder."""
    scratch = tempfile.TemporaryDirectory(prefix="cv-factory-tests-", ignore_cleanup_errors=True)
    folder = Path(scratch.name)
    environment = {
        "ZENML_CONFIG_PATH": str(folder / "zenml"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        # Several workers share the cores, and small networks gain nothing from a second thread.
        "OMP_NUM_THREADS": "1",
        # UMAP maps sixty images here: compiling it takes all of the time.
        "NUMBA_OPT": "0",
    }
    os.environ.update(environment)
    # In the background of a script, this process and all that it starts would ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_SCRATCH] = scratch
    config.stash[_ENVIRONMENT] = environment


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    text = "write the golden files anew instead of comparing with them; read the diff"
    parser.addoption("--update-golden", action="store_true", help=text)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Mark tests by their folder, and put first what takes longest."""
    for item in items:
        kind = item.path.relative_to(ROOT / "tests").parts[0]
        if kind in ("unit", "e2e"):
            item.add_marker(kind)
    yield  # those that are not selected leave the list
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = _arrange(items, workers)


def _arrange(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return the tests in an order that keeps workers busy.

    With ``--dist worksteal`` each worker begins with an equal part of the list, and takes from the
    end of another's when it has finished. So parts begin with the tests of commands, those of one
    project together, and the slow ones together: a project or a model takes long to make, and each
    worker makes its own; and no long test is left for the end.
    """
    groups: dict[str, list[pytest.Item]] = {
        "registry_history": [],
        "trained_project": [],
        "": [],  # those that need ZenML alone, then those of a fresh clone
        "slow": [],
    }
    rest: list[pytest.Item] = []
    for item in items:
        names = item.fixturenames if isinstance(item, pytest.Function) else []
        project: str | None = next((name for name in groups if name in names), "")
        if not item.get_closest_marker("e2e"):
            project = "slow" if item.get_closest_marker("slow") else None
        (rest if project is None else groups[project]).append(item)
    groups[""].sort(key=lambda item: "project" not in item.fixturenames)  # type: ignore[attr-defined]
    order: list[pytest.Item] = []
    for worker in range(workers):
        size = (len(items) - len(order)) // (workers - worker)
        part = [item for group in list(groups.values())[worker::workers] for item in group]
        n_others = max(0, size - len(part))
        order += [*part, *rest[:n_others]]
        del rest[:n_others]
    return order + rest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: tests of run.py wait for processes that start."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, keep the modules of one cloud in one worker as well.

    ``--dist loadgroup`` is no choice: xdist 3.8 marks groups in a way that pytest 9 ignores.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class CloudScheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            cloud = "tests/aws/"
            return cloud if nodeid.startswith(cloud) else str(super()._split_scope(nodeid))

    return CloudScheduling(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the scratch folder."""
    if _SCRATCH in config.stash:
        config.stash[_SCRATCH].cleanup()


@pytest.fixture(autouse=True)
def _own_zenml_only(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test after which this process no longer uses the scratch configuration."""
    yield
    expected = request.config.stash[_ENVIRONMENT]
    assert {name: os.environ.get(name) for name in expected} == expected


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail the session if it made a ZenML configuration or a store where a user has theirs."""
    import click

    places = [Path(click.get_app_dir("zenml")), *(ROOT / name for name in _LEFTOVERS)]
    before = {place for place in places if place.exists()}
    yield
    created = [str(place) for place in places if place.exists() and place not in before]
    assert not created, f"the tests made {', '.join(created)}"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return a function that compares a text with a file in the folder ``golden`` beside the test.

    ``pytest --update-golden`` writes the files, so that a change of wording is one diff to read.
    """
    folder = request.path.parent / "golden"

    def compare(name: str, text: str) -> None:
        file = folder / name
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.is_file(), f"{file} is missing: pytest --update-golden writes it"
        assert text == file.read_text(encoding="utf-8"), f"{file}: pytest --update-golden"

    return compare


@pytest.fixture(scope="session")
def missing_engine() -> Callable[[str], NoReturn]:
    """Return a function that ends a test because of what it says is missing.

    The test is skipped, or fails where ``CV_FACTORY_REQUIRE_ENGINES=1``, as in CI.
    """

    def end(message: str) -> NoReturn:
        if os.environ.get("CV_FACTORY_REQUIRE_ENGINES") == "1":
            pytest.fail(message)
        pytest.skip(message)

    return end


@pytest.fixture(scope="session")
def engine(missing_engine: Callable[[str], NoReturn]) -> Callable[..., str]:
    """Return a function from a program's names to its path, which a missing program ends."""

    def find(*names: str) -> str:
        program = next(filter(None, map(shutil.which, names)), None)
        return program or missing_engine(f"{' or '.join(names)} is not installed")

    return find
