"""``python -m stacks`` on a clean ZenML client: what it creates, changes, leaves and refuses."""

import json
import sqlite3
from typing import Any

from tests.support.project import Project

# Runs several commands in one process, as starting ZenML takes seconds.
_SESSION = """
import contextlib, io, json, os, sys
from stacks.__main__ import main
results = []
for arguments, variables in json.loads(sys.argv[1]):
    sys.argv[1:], output = arguments, io.StringIO()
    os.environ.update(variables)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main()
    for name in variables:
        del os.environ[name]
    results.append([code, output.getvalue()])
print("RESULT " + json.dumps(results))
"""

_ACCOUNT = """\
# The local stack with what differs per account.
extends: local
components:
  experiment_tracker:
    name: account_mlflow
    flavor: mlflow
    configuration:
      tracking_uri: ${TRACKING_URI}
      tracking_username: me
      tracking_password: "{{account_tracking.password}}"
    settings:
      tags: {team: vision}
    environment: {MLFLOW_HTTP_REQUEST_TIMEOUT: "5"}
secrets:
  account_tracking:
    password: ${TRACKING_PASSWORD}
environment:
  AWS_ENDPOINT_URL: http://127.0.0.1:9
"""
_VARIABLES = {"TRACKING_URI": "http://127.0.0.1:9", "TRACKING_PASSWORD": "hush-hush"}


def _commands(
    project: Project, *commands: tuple[list[str], dict[str, str]]
) -> list[tuple[int, str]]:
    output = project.warm("-c", _SESSION, json.dumps(commands)).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    return [(code, printed_text) for code, printed_text in json.loads(line.removeprefix("RESULT "))]


def _states(output: str) -> dict[str, str]:
    """Return state by ``kind name`` from the lines that ``apply`` prints."""
    rows = [line for line in output.splitlines() if line.startswith("  ")]
    return {" ".join(row[:44].split()): row[44:55].strip() for row in rows if row[44:55].strip()}


def _stored(project: Project) -> list[str]:
    """Return the whole content of ZenML's database."""
    path = project.zenml_config / "local_stores" / "default_zen_store" / "zenml.db"
    with sqlite3.connect(path) as connection:
        return list(connection.iterdump())


def _write(project: Project, name: str, text: str) -> None:
    (project.root / "stacks" / f"{name}.yaml").write_text(text)


def test_check_of_a_stack_that_was_never_applied(pristine_project: Project) -> None:
    refused = pristine_project.stacks("check", "local", code=2)
    assert "stack local is not registered" in refused.stdout
    assert "step_operator cv_factory_launcher is not registered" in refused.stdout
    assert "Run: python -m stacks apply local" in refused.stdout
    assert not (pristine_project.root / ".zen").exists()


def test_apply_creates_what_the_file_declares(project: Project) -> None:
    states = _states(project.history["apply"].stdout)
    assert states.pop("active stack local") == "updated"
    assert set(states.values()) == {"created"}
    assert {
        "source root project",
        "flavor bento",
        "flavor gx",
        "flavor launcher",
        "orchestrator cv_factory_local",
        "artifact_store cv_factory_local",
        "experiment_tracker cv_factory_mlflow",
        "model_deployer cv_factory_bento",
        "model_registry cv_factory_mlflow",
        "data_validator cv_factory_gx",
        "step_operator cv_factory_launcher",
        "stack local",
        "tracking store mlflow.db",
    } == states.keys()
    assert not project.processes()


def test_a_second_apply_writes_nothing(project: Project) -> None:
    before = _stored(project)
    again = project.stacks("apply", "local", "--set")
    assert set(_states(again.stdout).values()) == {"unchanged"}
    assert _stored(project) == before
    assert project.stacks("check", "local").stdout.strip().endswith("declares it.")


def test_the_tracking_store_is_complete(project: Project) -> None:
    (path,) = project.zenml_config.rglob("mlflow.db")
    source = (
        "import sys; from mlflow import MlflowClient\n"
        "names = [e.name for e in MlflowClient(sys.argv[1]).search_experiments()]\n"
        "print('NAMES', names)"
    )
    listing = project.warm("-c", source, f"sqlite:///{path}")
    assert "NAMES ['Default']" in listing.stdout
    assert "database tables" not in listing.stderr  # MLflow says so when it migrates


def test_missing_variables_are_all_named_and_nothing_is_created(project: Project) -> None:
    _write(project, "account", _ACCOUNT)
    before = _stored(project)
    refused = project.stacks("apply", "account", code=2)
    assert "TRACKING_PASSWORD, TRACKING_URI" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert _stored(project) == before


def test_a_child_stack_with_variables_secrets_and_settings(project: Project) -> None:
    _write(project, "account", _ACCOUNT)
    apply, check = ["apply", "account"], ["check", "account"]
    new_password = {**_VARIABLES, "TRACKING_PASSWORD": "other-word"}
    new_uri = {**new_password, "TRACKING_URI": "http://127.0.0.1:10"}
    first, checked, password, uri, again = _commands(
        project,
        (apply, _VARIABLES),
        (check, new_password),
        (apply, new_password),
        (apply, new_uri),
        (apply, new_uri),
    )
    created = {name for name, state in _states(first[1]).items() if state == "created"}
    assert created == {
        "secret account_tracking",
        "experiment_tracker account_mlflow",
        "stack account",
    }
    assert checked[0] == 2
    assert "secret account_tracking differs from the file (keys password)" in checked[1]
    assert _changed(password[1]) == {"secret account_tracking": "updated"}
    assert _changed(uri[1]) == {"experiment_tracker account_mlflow": "updated"}
    assert _changed(again[1]) == {}
    printed_text = "".join(output for _, output in (first, checked, password, uri, again))
    assert "hush-hush" not in printed_text
    assert "other-word" not in printed_text
    assert _account_as_stored(project) == {
        "configuration": {
            "tracking_uri": "http://127.0.0.1:10",
            "tracking_username": "me",
            "tracking_password": "{{account_tracking.password}}",
            "tags": {"team": "vision"},
        },
        "environment": {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5"},
        "stack environment": {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        "password": "other-word",
        "active": "local",
    }


def _changed(output: str) -> dict[str, str]:
    return {name: state for name, state in _states(output).items() if state != "unchanged"}


def _account_as_stored(project: Project) -> Any:
    source = """
import json
from zenml.client import Client
client = Client()
stack = client.get_stack("account")
tracker = next(p[0] for kind, p in stack.components.items() if kind.value == "experiment_tracker")
print("RESULT " + json.dumps({
    "configuration": tracker.configuration,
    "environment": tracker.environment,
    "stack environment": stack.environment,
    "password": client.get_secret("account_tracking").secret_values["password"],
    "active": client.active_stack_model.name,
}))
"""
    output = project.warm("-c", source).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


_NEEDS_NEPTUNE = """\
extends: local
components:
  experiment_tracker: {name: cv_factory_neptune, flavor: neptune, configuration: {project: a}}
"""
_OTHER_FLAVOR = """\
extends: local
components:
  orchestrator: {name: cv_factory_local, flavor: local_docker}
"""
_UNKNOWN_SETTING = """\
extends: local
components:
  step_operator: {name: cv_factory_launcher, flavor: launcher, configuration: {grace: 3}}
"""
_WRONG_SETTING = """\
extends: local
components:
  step_operator: {name: cv_factory_launcher, flavor: launcher, settings: {grace_period: -1}}
"""
_NO_SUCH_FLAVOR = """\
extends: local
components:
  step_operator: {name: other, flavor: launchpad}
"""
_NO_SUCH_SECRET = """\
extends: local
components:
  experiment_tracker:
    name: other
    flavor: mlflow
    configuration: {tracking_uri: "http://x", tracking_token: "{{nowhere.token}}"}
"""


def test_what_cannot_be_applied_is_refused_before_anything_is_created(project: Project) -> None:
    refusals = {
        "neptune": (_NEEDS_NEPTUNE, ["flavor neptune needs packages", "install 'neptune", "Run: "]),
        "other_flavor": (
            _OTHER_FLAVOR,
            ["exists with flavor 'local'", "zenml orchestrator delete cv_factory_local"],
        ),
        "unknown": (_UNKNOWN_SETTING, ["no setting grace", "grace_period"]),
        "wrong": (_WRONG_SETTING, ["step_operator cv_factory_launcher", "at least 0"]),
        "flavor": (_NO_SUCH_FLAVOR, ["no flavor 'launchpad'", "launcher"]),
        "secret": (_NO_SUCH_SECRET, ["nowhere", "zenml secret create nowhere --token=..."]),
    }
    for name, (text, _) in refusals.items():
        _write(project, name, text)
    before = _stored(project)
    results = _commands(project, *((["apply", name], {}) for name in refusals))
    for (code, printed_text), (_, expected) in zip(results, refusals.values(), strict=True):
        assert code == 2, printed_text
        assert [words for words in expected if words not in printed_text] == [], printed_text
        assert "Traceback" not in printed_text
    assert _stored(project) == before


def test_a_stack_of_the_users_own_is_left_alone(pristine_project: Project) -> None:
    mine = """
from zenml.client import Client
from zenml.models import StackRequest
parts = Client().active_stack_model.components
ids = {kind: [part.id for part in found] for kind, found in parts.items()}
Client().zen_store.create_stack(StackRequest(name="local", components=ids))
"""
    pristine_project.warm("-c", mine)
    before = _stored(pristine_project)
    refused = pristine_project.stacks("apply", "local", code=2)
    assert "not made by this project" in refused.stderr
    assert "zenml stack rename local" in refused.stderr
    assert _stored(pristine_project) == before


_REQUIRE = """
import os
from zenml.client import Client
from cv_factory.errors import StackError
from stacks.check import require_applied
from stacks.compat.zenml_active_stack import use_stack
for name in (None, "local", "never", "nowhere", "default"):
    try:
        print("SAID", require_applied(name))
    except StackError as error:
        print("SAID", str(error))
before = Client().active_stack_model.name
use_stack("default")
print("SAID", before, Client().active_stack_model.name, Client().active_stack_model.name)
"""


def test_require_applied_names_what_is_missing_and_its_cure(project: Project) -> None:
    _write(project, "never", "extends: local\n")
    output = project.warm("-c", _REQUIRE).stdout
    answers = [line.removeprefix("SAID ") for line in output.splitlines() if "SAID" in line]
    assert answers[:2] == ["local", "local"]
    assert answers[2] == "The stack 'never' was never applied. Run: python -m stacks apply never"
    assert "no file stacks/nowhere.yaml" in answers[3]
    assert "lacks: experiment_tracker, data_validator, step_operator" in answers[4]
    assert "python -m stacks apply local --set" in answers[4]
    assert answers[5] == "local default default"


def test_help_and_list_import_no_zenml(pristine_project: Project) -> None:
    source = """
import sys
from stacks.__main__ import main
sys.argv[1:] = [sys.argv[1]]
code = main()
print("ZENML" if "zenml" in sys.modules else "PLAIN", code)
"""
    assert "PLAIN 0" in pristine_project.python(source, "--help").stdout
    listed = pristine_project.python(source, "list").stdout
    assert "local               Everything on this machine." in listed
    assert "PLAIN 0" in listed
    assert not pristine_project.zenml_config.exists()
