"""From trained versions to production and back: on evidence, and with a signature."""

import json
from collections.abc import Callable
from typing import Any

import psutil

from tests.support.commands import Done, assert_codes, python, run_all
from tests.support.project import Project
from tests.support.registry_history import training

_STAGES = """
import json
from registry.model_registry import ModelRegistry
registry = ModelRegistry("digits")
aliases = registry.mirror._client.get_registered_model("digits").aliases
print(json.dumps([registry.stages(), {name: str(n) for name, n in aliases.items()}]))
"""
_PRODUCTION_FILES = """
import hashlib, json
from pathlib import Path
from registry.versions import find_production
folder = Path(find_production("digits").get_artifact("predictor").uri)
files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
print(json.dumps(files, sort_keys=True))
"""
# As a careful forger would: the last entry, in the right form; then without it.
_FORGE = """
import json
from zenml.client import Client
from pathlib import Path
from cv_factory.artifacts.files import canonical_json
folder = Path(Client().active_stack.artifact_store.path) / "cv_factory_audit" / "digits"
last = sorted(folder.glob("*.json"))[-1]
entry = json.loads(last.read_bytes())
last.write_bytes(canonical_json(entry | {"who": "Eve"}).encode())
"""
_CUT = _FORGE.rsplit("entry =", 1)[0] + "last.unlink()"
_RELABEL = """
from registry.versions import add_metadata, get_version
add_metadata(get_version("digits", 4), {"git_commit": "d" * 40})
"""

_ALIAS = """
from registry.model_registry import ModelRegistry
client = ModelRegistry("digits").mirror._client
number = max(int(v.version) for v in client.search_model_versions("name = 'digits'"))
client.set_registered_model_alias("digits", "production", str(number))
client.delete_registered_model_tag("digits", "audit_log_head")
"""
# The better version's metadata and predictor are exchanged for those of the one in production.
_RELINK = """
from registry.versions import add_metadata, get_version, link_artifacts
one, four = get_version("digits", 1), get_version("digits", 4)
link_artifacts(four, {"predictor": one.get_artifact("predictor").id}, None)
add_metadata(four, {"predictor": one.run_metadata["predictor"], "test_accuracy": 1.0})
"""
# A predictor that fails is given the mark of one that passes, which is then trained again.
_RETAG = """
from zenml.client import Client
from registry.versions import get_version
two, four = get_version("digits", 2), get_version("digits", 4)
(tag,) = [tag.name for tag in four.tags]
Client().update_model_version("digits", four.id, remove_tags=[tag])
Client().update_model_version("digits", two.id, add_tags=[tag])
"""
_DESCRIBE = """
from registry.versions import get_version
version = get_version("digits", 4)
print(version.run_metadata["test_accuracy"], version.run_metadata["predictor"])
print(version.get_artifact("predictor").run_metadata["fingerprint"])
"""
_POLICY = """
from registry.audit.state import Policy
from registry.model_registry import ModelRegistry
registry = ModelRegistry("digits")
print(registry.update_policy(Policy(approvers=("ada",)), "the test"))
print(registry.update_policy(Policy(), "the test"))
"""


def zenml(*words: str) -> list[str]:
    """Return a command for ``run_all`` that runs a ``zenml`` command."""
    return python(
        "from zenml.cli.cli import cli\n"
        "from stacks.compat.zenml_integrations import activate_only_stack_integrations\n"
        "activate_only_stack_integrations()\n"
        f"cli.main({['model', *words]!r}, standalone_mode=False)"
    )


#: What nobody may do, the exit code, and what is said.
REFUSED = (
    (["promote", "2"], 3, "digits version 2 failed 2 of 3 gates: accuracy no more than 0.01 worse"),
    (["approve", "2", "--reason", "x"], 3, "It is not approved, promoted or deployed"),
    (["stage", "2"], 3, "python run.py override 2 --model digits --gate 'accuracy no more"),
    (["stage", "1"], 3, "digits version 1 is in production"),
    (["reject", "1", "--reason", "x"], 3, "only a version in staging is rejected"),
    (["override", "4", "--gate", "x", "--reason", "x"], 3, "has no failed gate 'x' to override"),
    (
        ["promote", "9"],
        2,
        "Model digits has no version 9. See: python run.py models --model digits",
    ),
    (["rollback", "--to", "3"], 3, "digits version 3 failed 1 of 3 gates"),
    (["rollback", "--to", "1"], 3, "Version 1 is in production. See: python run.py status"),
    (["rollback"], 3, "Any version that passed its gates can be staged and promoted"),
    (["approve", "4", "--by", " ", "--reason", "x"], 2, "must not be empty"),
    (["approve", "4", "--by", "Eve", "--reason", "x\n  99  approved"], 2, "one line of printable"),
    (["history", "--model", "cats"], 2, "There is no model cats. Valid models: digits."),
    (["card", "4", "--html", "no/such/folder.html"], 2, "no/such/folder.html cannot be written"),
)


def stages(done: Done) -> tuple[dict[str, str], dict[str, str]]:
    """What ``_STAGES`` printed: stages in ZenML, aliases in MLflow."""
    held_stages, aliases = json.loads(done.output.splitlines()[-1])
    return held_stages, aliases


def test_evidence_decides_what_is_staged(registry_history: list[Done]) -> None:
    assert_codes(registry_history, 0, 3, 0, 0, 3, 3, 0, 0)
    first, unsigned, _, promoted, worse, equal, better, _ = (
        " ".join(done.output.split()) for done in registry_history
    )
    assert "there is no production model to compare with" in first
    assert "needs a person's approval" in unsigned
    assert "version 1 staging → production" in promoted
    assert "REFUSED" in worse
    assert "McNemar" in worse, "the test that says whether it is chance"
    assert "failed accuracy no more than 0.01 worse than production" in worse
    assert "REFUSED" in equal
    assert "passed accuracy no more than 0.01 worse than production" in equal
    assert "failed accuracy better than production by 0 or more" in equal
    assert "within chance" in equal
    assert "PASSED digits version 4 is in staging" in better


def test_a_rollback_needs_no_approval_and_log_and_card_name_people(
    project_with_history: Project, golden: Callable[[str, str], None]
) -> None:
    done = run_all(
        project_with_history,
        *(command for command, _, _ in REFUSED),
        python(_STAGES),
        python(_PRODUCTION_FILES),
        ["promote", "4", "--by", "Ada", "--reason", "better"],
        python(_PRODUCTION_FILES),
        ["card", "4"],
        ["rollback", "--by", "Bob", "--reason", "complaints"],
        python(_PRODUCTION_FILES),
        python(_STAGES),
        ["rollback"],
        ["models"],
        ["history"],
        ["trace", "4", "--verify", "--reproduce", "--provenance", "provenance.json"],
        # The rollback was the mistake.
        ["rollback", "--to", "4"],
        ["stage", "4"],
        ["promote", "4"],
        python(_RELABEL),
        ["trace", "4", "--verify"],
        python(_FORGE),
        ["history"],
        python(_CUT),
        ["history"],
    )
    refused, done = done[: len(REFUSED)], done[len(REFUSED) :]
    for answer, (command, code, why) in zip(refused, REFUSED, strict=True):
        assert (answer.code, command) == (code, command), answer.output
        assert why in " ".join(answer.output.split())
    golden("registry_refusals.txt", "\n".join(answer.output for answer in refused))
    assert_codes(done, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 1, 0, 1)
    outputs = [d.output for d in done]
    assert stages(done[0])[0] == {"1": "production", "2": "none", "3": "none", "4": "staging"}
    assert "version 1 production → archived, version 4 staging → production" in outputs[2]
    assert "Stage: **production**" in outputs[4]
    assert "Approved by: Ada" in outputs[4]
    assert "better beyond chance" in outputs[4]
    assert "version 4 production → archived, version 1 archived → production" in outputs[5]
    assert outputs[6] == outputs[1] != outputs[3], "the earlier predictor, byte for byte"
    held_stages, aliases = stages(done[7])
    assert held_stages == {"1": "production", "2": "none", "3": "none", "4": "archived"}
    assert aliases == {"production": "1"}
    assert "no earlier production version" in outputs[8]
    assert "production  version 1" in outputs[9]
    user = psutil.Process().username()
    for line in (
        f"Ada (system user {user}): read the card",
        f"Bob (system user {user}): complaints",
        "failed: accuracy better than",
    ):
        assert line in outputs[10]
    assert "10 of 10 checks agree" in outputs[11]
    statement = json.loads((project_with_history.root / "provenance.json").read_text())
    assert statement["predicate"]["runDetails"]["cvfactory_approval"]["who"] == "Ada"
    assert "python run.py stage 4 --model digits, then: python run.py promote 4" in outputs[12]
    assert "version 1 production → archived, version 4 staging → production" in outputs[14]
    assert "DIFFERS provenance that was approved" in outputs[16]
    for forged in (outputs[18], outputs[20]):
        assert "the log was cut or rewritten" in forged


_UPDATE = ("version", "update", "digits")
_DEPLOYMENT = ["--pipeline", "deployment"]
_WORSE, _NO_BETTER = (
    "accuracy no more than 0.01 worse than production",
    "accuracy better than production by 0 or more",
)
_WHY = ["--reason", "the test"]

#: An hour of a careless or hostile user: the command, its exit code, and what is said.
ATTACKS = (
    (python(_RETAG), 0, ""),
    (training(32), 0, "PASSED digits version 4 is in staging"),
    (zenml(*_UPDATE, "2", "--stage", "staging", "--force"), 0, ""),
    (["history", "--verify"], 1, "version 2 none → staging (ZenML says at"),
    (["promote", "2"], 3, "digits version 2 failed 2 of 3 gates"),
    (["approve", "2", *_WHY], 3, "digits version 2 failed 2 of 3 gates"),
    (_DEPLOYMENT, 3, "digits version 2 failed 2 of 3 gates"),
    (["--pipeline", "batch_inference", "--set", "model.version=2"], 3, "failed 2 of 3 gates"),
    ([*_DEPLOYMENT, "--set", "model.version=4"], 3, "python run.py stage 4 --model digits"),
    (zenml(*_UPDATE, "2", "--stage", "production", "--force"), 0, ""),
    (_DEPLOYMENT, 3, "version 2 is in production because somebody moved it there"),
    (["--pipeline", "batch_inference"], 3, "somebody moved it there beside the registry"),
    (["rollback"], 0, "version 2 production → archived, version 1 archived → production"),
    (["stage", "4"], 0, "version 4 archived → staging"),
    (python(_RELINK), 0, ""),
    (["promote", "4"], 0, "version 4 staging → production"),
    (python(_DESCRIBE), 0, ""),
    (zenml("version", "delete", "digits", "4", "--yes"), 0, ""),
    (["history", "--verify"], 1, "version 4 (production) was deleted from ZenML"),
    (["promote", "4"], 2, "digits version 4 was deleted with ZenML's own command"),
    (python(_ALIAS), 0, ""),
    (["history", "--verify"], 1, "MLflow's alias production named"),
    (["rollback"], 0, "version 1 archived → production"),
    (["override", "2", "--gate", _WORSE, *_WHY], 0, f"Still failed: {_NO_BETTER}"),
    (["stage", "2"], 3, "failed 1 of 3 gates"),
    (["override", "2", "--gate", _NO_BETTER, *_WHY], 0, "Next: python run.py stage 2"),
    (["stage", "2"], 0, "version 2 archived → staging"),
    (["card", "2"], 0, "2 failed, 2 overridden"),
    (["promote", "2"], 3, "needs a person's approval"),
    (["reject", "2", *_WHY], 0, "version 2 staging → none"),
    (python(_POLICY), 0, "Policy(manual_approval=False, approvers=('ada',)"),
    (["approve", "2", *_WHY], 3, "may not approve: approvers are ada"),
    (["override", "3", "--gate", _WORSE, "--by", "ada", *_WHY], 3, "may not override"),
    (["history", "--verify"], 0, "ZenML's versions and MLflow's aliases are as the log says"),
    (python(_STAGES), 0, ""),
    (zenml("delete", "digits", "--yes"), 0, ""),
    (["history", "--verify", "--model", "digits"], 1, "version 1 (production) was deleted"),
    (["promote", "1", "--model", "digits"], 2, "version 1 was deleted with ZenML's own command"),
    (["history", "--model", "digits"], 0, "changed outside: version 1 (production) was deleted"),
)


def test_what_is_changed_beside_the_registry_is_recorded_and_changes_no_verdict(
    project_with_history: Project,
) -> None:
    """Version 1 is in production, 2 and 3 failed gates, 4 is approved and in staging."""
    done = run_all(project_with_history, *(command for command, _, _ in ATTACKS))
    outputs = {}
    for answer, (command, code, text) in zip(done, ATTACKS, strict=True):
        assert answer.code == code, (command, answer.output)
        assert text in " ".join(answer.output.split()), command
        outputs[command[-1]] = answer.output
    accuracy, predictor, linked = outputs[_DESCRIBE].split()
    assert float(accuracy) < 1
    assert predictor == linked, "metadata and link are those of the registration"
    assert outputs[_POLICY].count("approvers=('ada',)") == 2, "only ada changes the policy"
    held_stages, aliases = json.loads(outputs[_STAGES].splitlines()[-1])
    assert held_stages == {"1": "production", "2": "none", "3": "none"}
    assert aliases == {"production": "1"}
    history = " ".join(outputs["digits"].split())
    for line in (
        "changed outside: version 2 none → staging",
        "version 4 staging → archived",
        "version 4, artifact predictor:",
        "→ 1.0; restored",
        "changed outside: version 4 (production) was deleted from ZenML",
        "MLflow held nothing of the audit log's end",
        f"override version 2: {_NO_BETTER}",
        "policy: approvers ada",
    ):
        assert line in history, history


def read_last_state(done: dict[str, Any]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What a fork saw last: stages in ZenML, aliases in MLflow, the last two entries of the log."""
    report = json.loads(done["output"].splitlines()[-1])
    held_stages = {number: stage for number, stage in report["stages"].items() if stage != "none"}
    return held_stages, report["aliases"], report["log"][-2:]


def test_racing_and_killed_commands_leave_consistent_stores(project_with_history: Project) -> None:
    """Real stores, real processes, SIGKILL; the start of Python and ZenML is paid once."""
    output = project_with_history.root / "forked.json"
    project_with_history.warm("-m", "tests.support.registry_races", str(output))
    report = json.loads(output.read_text())

    *both, after = report["race"]
    winner, loser = sorted(both, key=lambda done: done["status"])
    assert (winner["status"], loser["status"]) == (0, 1), both
    assert "Another process wrote entry 16 of the audit log at the same time" in loser["output"]
    in_production = "4" if "version 4 staging → production" in winner["output"] else "1"
    held_stages, aliases, log = read_last_state(after)
    assert [n for n, stage in held_stages.items() if stage == "production"] == [in_production]
    assert aliases["production"] == in_production
    assert log == ["intent", "done"]

    meanwhile = report["meanwhile"]
    assert [done["status"] for done in meanwhile.values()] == [0, 1, 0], meanwhile
    assert (
        "promote: 1 production → archived, 4 staging → production"
        in (meanwhile["history"]["output"])
    )
    assert "IN PROGRESS promote by Ada (audit log entry" in meanwhile["status"]["output"]
    assert "DISAGREES" not in meanwhile["status"]["output"]
    assert "outside" not in meanwhile["history"]["output"] + meanwhile["status"]["output"]

    # Killed before: intent, archive 1, promote 4, two aliases, done, head of the log.
    assert len(report["kills"]) == 7
    old = {"1": "production", "4": "staging"}, {"production": "1", "staging": "4"}
    new = {"1": "archived", "4": "production"}, {"production": "4"}
    for killed_before, next_command in enumerate(report["kills"]):
        held_stages, aliases, log = read_last_state(next_command)
        assert (held_stages, aliases) == (old if killed_before < 2 else new), killed_before
        if killed_before == 1:
            assert "An interrupted promote was undone" in next_command["output"]
            assert log == ["intent", "undone"]
        elif killed_before in (2, 3, 4, 5):
            assert "An interrupted promote was finished" in next_command["output"]
            assert log == ["intent", "done"]
        else:
            assert "interrupted" not in next_command["output"]
