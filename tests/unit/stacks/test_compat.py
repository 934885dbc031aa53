"""Each cure in stacks/compat is still needed; a test that fails here says which to remove."""

import importlib.util
import inspect
import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import zenml
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.integrations.registry import integration_registry

from stacks.compat.zenml_active_stack import find_foreign_configuration, keep_active_stack
from stacks.compat.zenml_autologging import import_no_framework_after_steps
from stacks.compat.zenml_configuration import share_configuration_files
from tests.support.paths import ROOT


@pytest.fixture
def aws_extra(missing_engine: Callable[[str], NoReturn]) -> None:
    """End the test where the extra ``aws`` is not installed."""
    if not all(map(importlib.util.find_spec, ("boto3", "sagemaker"))):
        missing_engine("boto3, sagemaker not installed: make install-engines")


def test_the_cures_are_for_the_installed_zenml() -> None:
    assert zenml.__version__ == "0.98.0", "review stacks/compat for this version"


def test_zenml_activates_integrations_that_no_stack_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    activated: list[str] = []
    names = ("sklearn", "pytorch")
    for name in names:
        integration = integration_registry.integrations[name]
        monkeypatch.setattr(integration, "activate", lambda name=name: activated.append(name))
    chosen = {name: integration_registry.integrations[name] for name in names}
    registry = type(integration_registry)()
    monkeypatch.setattr(registry, "_initialize", lambda: None)
    monkeypatch.setattr(registry, "_integrations", chosen)
    registry.activate_integrations()
    assert activated == list(names), "remove stacks.compat.zenml_integrations"


def test_zenml_imports_frameworks_to_switch_off_their_autologging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker as Tracker

    stock = Tracker.disable_autologging
    monkeypatch.setattr(Tracker, "disable_autologging", stock)  # put back afterwards
    imported: list[str] = []
    monkeypatch.setattr("importlib.import_module", lambda name: imported.append(name))
    logging.disable(logging.WARNING)
    tracker: Any = object()
    stock(tracker)
    logging.disable(logging.NOTSET)
    assert "mlflow.pytorch" in imported, "remove stacks.compat.zenml_autologging"
    imported.clear()
    import_no_framework_after_steps()
    Tracker.disable_autologging(tracker)
    assert not imported


def test_zenml_parses_the_active_stacks_variable_as_an_id() -> None:
    source = inspect.getsource(Client.active_stack_model.fget)  # type: ignore[attr-defined]
    parses = "UUID(env_stack_id)" in "".join(source.split())
    assert parses, "remove stacks.compat.zenml_active_stack"


def test_zenml_creates_stacks_without_environment() -> None:
    parameters = inspect.signature(Client.create_stack).parameters
    assert "environment" not in parameters, "use it in stacks.plan"


@pytest.mark.engines
@pytest.mark.usefixtures("aws_extra")
def test_zenmls_step_operator_reads_a_session_that_it_never_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sagemaker.session import Session
    from zenml.integrations.aws.flavors.sagemaker_step_operator_flavor import (
        SagemakerStepOperatorConfig,
    )
    from zenml.integrations.aws.step_operators import SagemakerStepOperator

    from stacks.compat.zenml_sagemaker import StepOperatorWithSession

    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    now, nobody = datetime.now(UTC), uuid.uuid4()
    stock, cured = (
        kind(
            name="gpu", id=nobody, config=SagemakerStepOperatorConfig(role="role"),
            flavor="sagemaker", type=StackComponentType.STEP_OPERATOR, user=nobody, created=now,
            updated=now,
        )
        for kind in (SagemakerStepOperator, StepOperatorWithSession)
    )  # fmt: skip
    with pytest.raises(AttributeError, match="_sagemaker_session"):
        stock.sagemaker_session  # noqa: B018  (passes here: remove StepOperatorWithSession)
    assert isinstance(cured.sagemaker_session, Session)


@pytest.mark.engines
@pytest.mark.usefixtures("aws_extra")
def test_zenmls_orchestrator_waits_at_most_50_minutes() -> None:
    from zenml.integrations.aws.orchestrators import sagemaker_orchestrator as module

    assert module.POLLING_DELAY * module.MAX_POLLING_ATTEMPTS == 3000
    source = inspect.getsource(module.SagemakerOrchestrator.submit_pipeline)
    assert "max_attempts=MAX_POLLING_ATTEMPTS" in source, "remove wait_for_execution"


@pytest.mark.engines
@pytest.mark.usefixtures("aws_extra")
def test_zenmls_image_builder_forbids_what_a_docker_daemon_needs() -> None:
    from zenml.integrations.aws.image_builders import AWSImageBuilder

    source = inspect.getsource(AWSImageBuilder.build)
    assert "privilegedModeOverride=False" in source, "remove stacks.compat.zenml_codebuild"


@pytest.mark.engines
@pytest.mark.usefixtures("aws_extra")
def test_the_sagemaker_sdk_recommends_a_version_that_zenml_cannot_use() -> None:
    command = [sys.executable, "-c", "import sagemaker"]
    stock = subprocess.run(command, capture_output=True, text=True, check=True)
    output = stock.stdout + stock.stderr
    assert "SAGEMAKER_SUPPRESS_V2_WARNING" in output, "remove stacks.compat.sagemaker_sdk"


def test_zenmls_aws_integration_requires_a_package_that_nothing_here_uses() -> None:
    requirements = integration_registry.integrations["aws"].get_requirements()
    assert any(line.startswith("kubernetes") for line in requirements), "see stacks.packages"


def test_zenml_empties_its_configuration_files_before_it_writes_them(tmp_path: Path) -> None:
    from zenml.utils import yaml_utils

    file = tmp_path / "config.yaml"
    file.write_text("version: 1\n")
    with file.open() as reader:
        yaml_utils.write_yaml(str(file), {})
        in_place = reader.read() != "version: 1\n"
    assert in_place, "remove stacks.compat.zenml_configuration"


def test_a_reader_of_zenmls_configuration_never_sees_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zenml.config import global_config
    from zenml.utils import filesync_model

    for module in (global_config, filesync_model):  # put back afterwards
        monkeypatch.setattr(module, "yaml_utils", module.yaml_utils)
    share_configuration_files()
    shared: Any = filesync_model.yaml_utils
    file = tmp_path / "config.yaml"
    file.write_text("version: 1\n")
    file.chmod(0o600)
    before = file.stat()
    shared.write_yaml(str(file), {"version": 1})
    assert file.stat() == before, "nothing changed, so nothing is written"
    with file.open() as reader:
        shared.write_yaml(str(file), {"version": 2})
        assert reader.read() == "version: 1\n"
    assert shared.read_yaml(str(file)) == {"version": 2}
    assert (file.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o600, [file])

    file.write_text("")  # by a process without this cure, which writes now
    writer = threading.Timer(0.2, file.write_text, ["version: 3\n"])
    writer.start()
    assert shared.read_yaml(str(file)) == {"version": 3}
    writer.join()


@pytest.fixture
def foreign_client(tmp_path: Path) -> Any:
    """A client of a store that lacks the stack in the configuration file of its checkout."""
    from zenml.client import ClientConfiguration

    config = ClientConfiguration(config_file=str(tmp_path / "config.yaml"))
    config.active_stack_id = uuid.UUID(int=1)
    own = (SimpleNamespace(id=uuid.UUID(int=2)), SimpleNamespace(id=uuid.UUID(int=3)))
    store = SimpleNamespace(validate_active_config=lambda *_, **__: own)
    return SimpleNamespace(_config=config, zen_store=store, config_directory=tmp_path)


def test_zenml_replaces_the_active_stack_of_others(foreign_client: Any, tmp_path: Path) -> None:
    Client._sanitize_config(foreign_client)
    replaced = str(uuid.UUID(int=3)) in (tmp_path / "config.yaml").read_text()
    assert replaced, "remove stacks.compat.zenml_active_stack.keep_active_stack"


def test_a_client_of_another_store_leaves_the_active_stack_of_a_checkout(
    foreign_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "config.yaml").read_bytes()
    monkeypatch.setattr(Client, "_sanitize_config", Client._sanitize_config)  # put back afterwards
    keep_active_stack()
    Client._sanitize_config(foreign_client)
    assert (tmp_path / "config.yaml").read_bytes() == before
    # It uses the default stack of its own store, and says why where that does not do.
    assert foreign_client._config._active_stack.id == uuid.UUID(int=3)
    monkeypatch.setattr("zenml.client.Client", lambda: foreign_client)
    assert find_foreign_configuration() == tmp_path / "config.yaml"
    foreign_client._config.active_stack_id = uuid.UUID(int=3)
    assert find_foreign_configuration() is None


def test_mlflow_imports_packages_that_its_client_does_not_need() -> None:
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    imported = Path(spec.origin).read_text(encoding="utf-8")
    for name in ("data", "genai", "models"):
        assert f"        {name},  # noqa" in imported, "shorten stacks.compat.mlflow_imports"
    code = """
import sys
from stacks.compat.mlflow_imports import defer_packages
defer_packages()
import mlflow
import mlflow.store.tracking.sqlalchemy_store
import zenml.integrations.mlflow.model_registries
deferred = {"fastapi", "scipy", "mlflow.data.dataset_registry", "mlflow.models.signature"}
print(deferred & {*sys.modules})
import mlflow.genai
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    evaluate = set(pool.map(lambda _: mlflow.genai.evaluate, range(8)))
print(*map(callable, evaluate), mlflow.genai.judges.make_judge.__name__)
from zenml.integrations.mlflow.model_registries.mlflow_model_registry import load_model
from mlflow.exceptions import MlflowException
try:
    load_model("nowhere")
except MlflowException:
    print(mlflow.pyfunc.load_model.__module__)
from mlflow.models import Model
print(Model.__name__, mlflow.models.infer_signature([1.0]).inputs is None)
print(mlflow.data.Dataset is mlflow.data.dataset.Dataset, callable(mlflow.data.from_numpy))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    expected = "set()\nTrue make_judge\nmlflow.pyfunc\nModel False\nTrue True\n"
    assert done.stdout == expected
