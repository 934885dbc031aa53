"""Signed statements of versions: verified, rotated, revoked, and refused when changed."""

import json

from tests.support.commands import python, run_all
from tests.support.project import Project

_WRITE_KEY_AND_PREDICTOR = """
import shutil
from pathlib import Path
from registry import versions
from registry.provenance.dsse import format_public_keys
from registry.provenance.signing_key import find_signing_key
Path("key.pub").write_text(format_public_keys(find_signing_key().trusted))
shutil.copytree(versions.get_version("digits", 4).get_artifact("predictor").uri, "predictor")
"""
_RELABEL = """
from registry.versions import add_metadata, get_version
add_metadata(get_version("digits", 4), {"git_commit": "d" * 40})
"""
_ENVELOPE = """
from pathlib import Path
from zenml.client import Client
root = Path(Client().active_stack.artifact_store.path)
path = root / "cv_factory_attestations" / "digits" / "NUMBER.intoto.json"
"""
_REMOVE = _ENVELOPE.replace("NUMBER", "4") + "path.unlink()"
_FORGE = (
    _ENVELOPE.replace("NUMBER", "1")
    + """
import base64, json
envelope = json.loads(path.read_text())
statement = base64.b64decode(envelope["payload"]).replace(b"local", b"other")
path.write_text(json.dumps(envelope | {"payload": base64.b64encode(statement).decode()}))
"""
)
_ANOTHER_STATEMENT = """
from registry import versions
from registry.provenance.attestation import sign_statement
from registry.provenance.statement import rebuild_statement
statement = rebuild_statement(versions.get_version("digits", 1))
statement["predicate"]["runDetails"]["metadata"]["invocationId"] = "another run"
sign_statement("digits", 1, statement)
"""
_EVALUATE_ANOTHER = (
    _ENVELOPE.replace("NUMBER", "2")
    + """
from registry import versions
path.unlink()
version = versions.get_version("digits", 2)
header = Path(version.get_artifact("evaluation").uri) / "evaluation.json"
fingerprint = versions.predictor_fingerprint(version)
header.write_text(header.read_text().replace(fingerprint, "0" * 64))
"""
)
_PUBLIC_KEY = ("--public-key", "key.pub")


def test_a_version_is_verified_until_somebody_changes_it(project_with_history: Project) -> None:
    commands: list[tuple[int, list[str], str]] = [
        (0, ["verify", "4"], "VERIFIED digits version 4"),
        (0, ["trace", "4", "--attestation", "signed.json"], "written to signed.json"),
        (0, ["trace", "4", "--verify", "--json"], ""),
        (0, python(_WRITE_KEY_AND_PREDICTOR), ""),
        (0, ["verify", "signed.json", *_PUBLIC_KEY, "--predictor", "predictor"], "VERIFIED"),
        (0, ["signing-key", "--rotate"], "BEGIN PUBLIC KEY"),
        (0, ["verify", "4"], "VERIFIED"),
        (0, ["signing-key", "--rotate", "--revoke"], "run.py sign VERSION"),
        (1, ["verify", "4"], "digits version 4: It is signed with the key"),
        (0, ["verify", "4", *_PUBLIC_KEY], "VERIFIED"),
        (0, ["sign", "4", "--by", "Ada"], "Next: python run.py verify 4 --model digits"),
        (0, ["verify", "4"], "Approved by Ada"),
        (1, ["verify", "4", *_PUBLIC_KEY], "It is signed with the key"),
        (0, ["history"], "signed version 4"),
        (0, python(_RELABEL), ""),
        (1, ["verify", "4"], "buildDefinition.resolvedDependencies.source.digest.gitCommit"),
        # What the audit log holds is put back.
        (0, ["sign", "4"], "is signed with the key"),
        (0, ["verify", "4"], "VERIFIED"),
        (0, python(_REMOVE), ""),
        (1, ["verify", "4"], "python run.py sign 4 --model digits"),
        (0, python(_FORGE), ""),
        (1, ["verify", "1", *_PUBLIC_KEY], "changed after signing"),
        (0, ["sign", "1"], "is signed with the key"),
        (0, ["verify", "1"], "VERIFIED"),
        (0, python(_ANOTHER_STATEMENT), ""),
        (1, ["verify", "1"], "runDetails.metadata.invocationId"),
        (1, ["sign", "1"], "is not what was signed"),
        (0, python(_EVALUATE_ANOTHER), ""),
        (1, ["sign", "2"], "differs from its lineage: evaluation's predictor"),
    ]
    done = run_all(project_with_history, *(arguments for _, arguments, _ in commands))
    for answer, (code, arguments, text) in zip(done, commands, strict=True):
        assert (answer.code, arguments) == (code, arguments), answer.output
        assert text in answer.output, arguments
    chain = json.loads(done[2].output)
    links = {link["name"]: link["facts"] for link in chain["links"]}
    assert (chain["model"], chain["version"]) == ("digits", 4)
    assert links["commit"]["git_commit"] == project_with_history.head
    assert len(links["predictor"]["fingerprint"]) == 64
    assert len(chain["checks"]) == 9
    assert all(check["ok"] for check in chain["checks"])
