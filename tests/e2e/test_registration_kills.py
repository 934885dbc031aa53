"""A registration that is killed before any of its writes is completed by the next run."""

import json

from tests.support.project import Project

_SOURCE = """
import json
from zenml.client import Client
from stacks.compat.zenml_integrations import activate_only_stack_integrations

activate_only_stack_integrations()
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.register import RegisterConfig
from cv_factory.config.train import TrainConfig
from registry import versions
from registry.audit.log_files import LocalLogFiles
from registry.mlflow.mirror import MlflowMirror
from registry.model_registry import ModelRegistry
from registry import register as registering
from registry.candidate import RegistrationCandidate
from registry.provenance.attestation import verify_version
from registry.register import register_candidate
from registry.run_reference import RunReference, step_parameters
from registry.stages import open_intent


class Killed(BaseException):
    pass


remaining = None
# The card takes a second to draw and writes nothing.
registering.build_card_content = lambda *_: None
registering.render_html = registering.render_markdown = lambda _: ""


def counted(owner, name):
    original = getattr(owner, name)

    def write(*arguments, **named):
        global remaining
        if remaining is not None:
            if remaining == 0:
                raise Killed
            remaining -= 1
        return original(*arguments, **named)

    setattr(owner, name, write)


for name in ("create_version", "link_artifacts", "add_metadata", "set_stage"):
    counted(versions, name)
for name in ("update_version", "update_stages", "store_log_head"):
    counted(MlflowMirror, name)
counted(LocalLogFiles, "create")
counted(registering, "sign_statement")

version = versions.get_version("digits", 1)
names = ("predictor", "evaluation", "trained_model", "dataset", "split", "data_report")
artifacts = {name: version.get_artifact(name) for name in names}
loaded = [artifacts[name].load() for name in names]
run = Client().get_pipeline_run(str(version.run_metadata["pipeline_run"]))
reference = RunReference(
    run.id,
    run.name,
    {name: a.id for name, a in artifacts.items()},
    parameters=step_parameters(run),
)


def register(model):
    register_candidate(
        RegistrationCandidate(*loaded, TrainConfig()),
        [GateConfig(metric="accuracy", min=0.5)],
        EvaluateConfig(),
        RegisterConfig(model_name=model),
        {"git_commit": "c" * 40},
        reference,
    )


states, kills = [], 0
while True:
    model = f"killed-{kills}"
    remaining = kills
    try:
        register(model)
        break
    except Killed:
        remaining = None
    register(model)
    registry = ModelRegistry(model)
    entries = registry.log.entries()
    (number,) = registry.stages()
    states.append({
        "stages": registry.stages(),
        "open": open_intent(entries) is not None,
        "registered": sum(e.kind == "registered" for e in entries),
        "done": sum(e.kind == "done" for e in entries),
        "commit": versions.get_version(model, number).run_metadata.get("git_commit"),
        "linked": versions.get_version(model, number).get_artifact("predictor") is not None,
        "aliases": {
            name: str(number)
            for name, number in registry.mirror._client.get_registered_model(model).aliases.items()
        },
        "mirrored": len(registry.mirror._client.search_model_versions(f"name = '{model}'")),
        "signed": len(verify_version(versions.get_version(model, number))),
        "head": registry.log.check()[-1].kind,
    })
    kills += 1
print("STATES" + json.dumps(states))
"""


def test_a_registration_killed_before_any_write_is_completed(trained_project: Project) -> None:
    lines = trained_project.warm("-c", _SOURCE).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("STATES")]
    states = json.loads(line.removeprefix("STATES"))
    # Create, link, describe, sign, mirror, complete, approval, log, head, intent, stage, alias, …
    assert len(states) >= 13
    for kill, state in enumerate(states):
        expected = {
            "stages": {"1": "staging"},
            "open": False,
            "registered": 1,
            "done": 1,
            "commit": "c" * 40,
            "linked": True,
            "aliases": {"staging": "1"},
            "mirrored": 1,
            "signed": 64,
            "head": "done",
        }
        assert state == expected, f"killed before write {kill}"
