"""The provenance is a valid in-toto v1 statement with a valid SLSA v1 predicate."""

import copy
import hashlib
import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from cv_factory.artifacts.files import fingerprint
from cv_factory.inference.predictor import BackboneSource, Contract, Predictor
from registry.audit.log import AuditEntry
from registry.provenance.statement import LOCAL_BUILD_TYPE, add_approval, build_statement
from registry.provenance.trace import _backbone_links
from tests.support.paths import ROOT
from tests.support.predictors import digits_predictor

URI = {"type": "string", "pattern": r"^[a-z][a-z0-9+.\-]*:\S+$"}
# "Though all fields are optional, a ResourceDescriptor MUST specify one of uri, digest or content":
# in-toto/attestation, spec/v1/resource_descriptor.md; digests: spec/v1/digest_set.md.
RESOURCE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "uri": URI,
        "digest": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                "sha256": {"pattern": "^[0-9a-f]{64}$"},
                "gitCommit": {"pattern": "^([0-9a-f]{40}|[0-9a-f]{64})$"},
            },
        },
        "content": {"type": "string"},
        "downloadLocation": URI,
        "mediaType": {"type": "string"},
        "annotations": {"type": "object"},
    },
    "anyOf": [{"required": [name]} for name in ("uri", "digest", "content")],
}
# Extension fields are named VENDOR_FIELD: slsa-framework/slsa, spec/build-provenance.md.
EXTENSION: dict[str, dict[str, object]] = {"^cvfactory_[a-zA-Z]+$": {}}


def fields(required: str, optional: str = "", **schemas: Any) -> dict[str, Any]:
    """The schema of an object with these fields, and extension fields, and no other."""
    names = [*required.split(), *optional.split()]
    return {
        "type": "object",
        "required": required.split(),
        "additionalProperties": False,
        "properties": {name: schemas.get(name, {}) for name in names},
        "patternProperties": EXTENSION,
    }


RESOURCES = {"type": "array", "items": RESOURCE}
TEXT, OBJECT = {"type": "string"}, {"type": "object"}
SCHEMA = fields(
    "_type subject predicateType predicate",
    _type={"const": "https://in-toto.io/Statement/v1"},
    subject={
        "type": "array", "minItems": 1, "items": {**RESOURCE, "required": ["digest"]}
    },
    predicateType={"const": "https://slsa.dev/provenance/v1"},
    predicate=fields(
        "buildDefinition runDetails",
        buildDefinition=fields(
            "buildType externalParameters", "internalParameters resolvedDependencies",
            buildType=URI, externalParameters=OBJECT, internalParameters=OBJECT,
            resolvedDependencies=RESOURCES,
        ),
        runDetails=fields(
            "builder", "metadata byproducts",
            builder=fields(
                "id", "builderDependencies version", id=URI, builderDependencies=RESOURCES,
                version={"type": "object", "additionalProperties": TEXT},
            ),
            metadata=fields("", "invocationId startedOn finishedOn", invocationId=TEXT),
            byproducts=RESOURCES,
        ),
    ),
)  # fmt: skip
LINEAGE = {
    "git_commit": "c" * 40,
    "git_dirty": "true",
    "stack": "local",
    "pipeline_run": "training-1",
    "zenml_deployment": "5f6c1f5e-8a64-4d4b-9f39-0d1c7c1f1d11",
    "package_zenml": "0.98.0",
    "package_torch": "not installed",
}
APPROVAL = AuditEntry(
    3, "0" * 64, "approved", "Ada Łovelace", "2026-11-21T12:00:00+00:00", "ok", {}
)


@pytest.fixture
def predictor() -> Predictor:
    fitted = digits_predictor("logistic_regression")[0]
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("data", "config")}
    return replace(fitted, contract=replace(fitted.contract, fingerprints=hashes))


def validate(statement: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(statement)


def test_the_statement_is_valid_with_and_without_an_approval(predictor: Predictor) -> None:
    statement = build_statement(predictor, LINEAGE, {"train": {"config": {"seed": 0}}})
    validate(statement)
    approved = add_approval(statement, APPROVAL)
    validate(approved)
    approval = approved["predicate"]["runDetails"]["cvfactory_approval"]
    assert approval["auditLogEntry"] == {"number": 3, "sha256": APPROVAL.sha256}
    assert "cvfactory_approval" not in statement["predicate"]["runDetails"], (
        "add_approval changes a copy"
    )
    broken = copy.deepcopy(statement)
    del broken["subject"][0]["digest"]
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


def test_subjects_are_the_stored_files(predictor, tmp_path) -> None:
    predictor.save(tmp_path)
    stored = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()}
    statement = build_statement(predictor, LINEAGE, {})
    assert {s["name"]: s["digest"]["sha256"] for s in statement["subject"]} == stored
    assert set(stored) == {"contract.json", "golden.npz", "predictor.onnx"}
    again = build_statement(Predictor.load(tmp_path), LINEAGE, {})
    assert fingerprint(again) == fingerprint(statement)


def test_unknown_facts_are_left_out(predictor: Predictor) -> None:
    statement = build_statement(predictor, {**LINEAGE, "git_commit": "unknown"}, {})
    validate(statement)
    resolved = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert "source" not in {dependency.get("name") for dependency in resolved}
    assert [d["uri"] for d in resolved if "uri" in d] == ["pkg:pypi/zenml@0.98.0"]


def test_a_clone_names_its_repository_and_a_statement_from_before_stays(predictor) -> None:
    cloned = {**LINEAGE, "git_url": "https://github.com/owner/name"}
    statement = build_statement(predictor, cloned, {})
    validate(statement)
    definition = statement["predicate"]["buildDefinition"]
    page, _, anchor = definition["buildType"].partition("#")
    assert page == "https://github.com/owner/name/blob/HEAD/docs/provenance.md"
    assert f"\n## {anchor.replace('-', ' ').capitalize()}\n" in (
        ROOT / "docs" / "provenance.md"
    ).read_text(encoding="utf-8")
    assert definition["resolvedDependencies"][0]["uri"] == "git+https://github.com/owner/name"
    before = build_statement(predictor, LINEAGE, {})["predicate"]["buildDefinition"]
    assert before["buildType"] == LOCAL_BUILD_TYPE
    assert "uri" not in before["resolvedDependencies"][0]


def test_the_build_type_is_documented(request: pytest.FixtureRequest) -> None:
    page = (request.config.rootpath / "docs" / "provenance.md").read_text(encoding="utf-8")
    assert f"`{LOCAL_BUILD_TYPE}`" in page
    assert re.search(r"```json\n\{.*?\n```", page, re.DOTALL), "with an example"


def test_a_pretrained_backbone_is_a_dependency_and_part_of_the_chain(predictor: Predictor) -> None:
    source = BackboneSource("efficientnet_lite0", 128, 1280, "a" * 64, "Apache-2.0", "b" * 64)
    contract = replace(predictor.contract, backbone=source)
    assert Contract.from_dict(contract.to_dict()) == contract
    pretrained = replace(predictor, contract=contract)
    statement = build_statement(pretrained, LINEAGE, {})
    validate(statement)
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    (weights,) = (d for d in dependencies if d.get("name") == "backbone weights")
    assert weights["digest"] == {"sha256": "a" * 64}
    (link,) = _backbone_links(statement)
    assert link.facts["license"] == "Apache-2.0"
    assert link.facts["sha256 of the weights"] == "a" * 64
    assert not list(_backbone_links(build_statement(predictor, LINEAGE, {})))
