"""Projects for end-to-end tests: each test gets the one workbench back in the state it asks for."""

import os
import sys
from collections.abc import Iterator

import pytest

from tests.support.backbones import write_random_backbone
from tests.support.commands import Done, assert_codes, run_all
from tests.support.images import write_photo_folders
from tests.support.project import Completed, Project
from tests.support.registry_history import COMMANDS


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The copy of the project that all tests share, one after the other, with the states it had.

    A second copy would need a stack of its own, since stores and stacks name absolute paths.
    Tests ask for ``pristine_project``, ``project`` or ``trained_project`` instead.
    """
    bench = Project(tmp_path_factory.mktemp("workbench"))
    bench.save("pristine")
    yield bench
    bench.close()


@pytest.fixture
def pristine_project(workbench: Project) -> Iterator[Project]:
    """A fresh clone: ZenML was never used, no stack was applied."""
    yield from _in_state(workbench, "pristine")


@pytest.fixture
def project(workbench: Project) -> Iterator[Project]:
    """A project whose local stack is applied and active, and in which nothing has run."""
    _make_applied(workbench)
    yield from _in_state(workbench, "applied")


@pytest.fixture
def trained_project(
    workbench: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A project in which the training pipeline ran once; its output is ``history["training"]``.

    It is the test's own: it may run, edit and delete what it likes.
    """
    if not workbench.has("trained"):
        _make_applied(workbench)
        workbench.restore("applied")
        workbench.history["training"] = _train(workbench, tmp_path_factory)
        workbench.save("trained")
    yield from _in_state(workbench, "trained")


@pytest.fixture
def photos_project(workbench: Project) -> Iterator[Project]:
    """A project in which the plain command trained on photos: ``history["photos"]`` is its output.

    The photos are ``home / "photos"``, three classes of twelve. The backbone is a small one of
    random weights, which its copy of the project has in place of EfficientNet-Lite0.
    """
    if not workbench.has("photos"):
        _make_applied(workbench)
        workbench.restore("applied")
        write_photo_folders(workbench.home / "photos")
        write_random_backbone(workbench.root)
        source = ("data.source=folder", f"data.path={workbench.home / 'photos'}")
        words = [word for setting in source for word in ("--set", setting)]
        training = ("--pipeline", "training", "--model", "photos", *words)
        workbench.history["photos"] = workbench.run(*training)
        workbench.save("photos")
    yield from _in_state(workbench, "photos")


@pytest.fixture(scope="session")
def registry_history(workbench: Project) -> list[Done]:
    """What ``registry_history.COMMANDS`` printed; ``project_with_history`` is what they left."""
    _make_applied(workbench)
    workbench.restore("applied")
    done = run_all(workbench, *COMMANDS)
    workbench.save("history")
    return done


@pytest.fixture
def project_with_history(workbench: Project, registry_history: list[Done]) -> Iterator[Project]:
    """A project with four versions: in production, worse, equal, and a better one in staging."""
    assert_codes(registry_history, 0, 3, 0, 0, 3, 3, 0, 0)
    yield from _in_state(workbench, "history")


def _make_applied(workbench: Project) -> None:
    if not workbench.has("applied"):
        workbench.restore("pristine")
        workbench.history["apply"] = workbench.stacks("apply", "local", "--set")
        workbench.save("applied")


def _train(workbench: Project, tmp_path_factory: pytest.TempPathFactory) -> Completed:
    """Train in new processes, as a user does, in the first worker; in others in forks."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the workers share
    try:
        (folder / "first_training").mkdir()
    except FileExistsError:
        return workbench.run("--pipeline", "training")
    command = [sys.executable, "run.py", "--pipeline", "training"]
    return workbench.command(command, timeout=480)


def _in_state(workbench: Project, name: str) -> Iterator[Project]:
    workbench.restore(name)
    yield workbench
    workbench.stop()
