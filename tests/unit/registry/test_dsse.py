"""Signed statements: what was changed, or signed by somebody else, is refused."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli.main import command
from cv_factory.artifacts.files import fingerprint, sha256_file
from registry.provenance.attestation import find_differences
from registry.provenance.dsse import (
    AttestationError,
    format_private_key,
    format_public_keys,
    key_id,
    parse_private_key,
    parse_public_keys,
    sign,
    verify_envelope,
)
from tests.support.paths import ROOT

KEY, OTHER_KEY = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
STATEMENT: dict[str, Any] = {"_type": "https://in-toto.io/Statement/v1", "predicate": {"who": "Ä"}}


def test_the_signature_covers_type_and_payload_as_the_specification_says() -> None:
    envelope = sign(STATEMENT, KEY)
    payload = base64.b64decode(envelope["payload"])
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    (signature,) = envelope["signatures"]
    # https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    KEY.public_key().verify(base64.b64decode(signature["sig"]), signed)
    assert signature["keyid"] == key_id(KEY.public_key())
    assert fingerprint(json.loads(payload)) == fingerprint(STATEMENT), "what an approval holds"


def test_any_trusted_key_counts_and_both_kinds_of_base64() -> None:
    envelope = sign(STATEMENT, KEY)
    trusted = [OTHER_KEY.public_key(), KEY.public_key()]
    assert verify_envelope(envelope, trusted) == (STATEMENT, key_id(KEY.public_key()))
    (signature,) = envelope["signatures"]
    # Key ids are hints: DSSE makes them optional.
    url_safe = signature["sig"].translate(str.maketrans("+/", "-_"))
    both = [*sign(STATEMENT, OTHER_KEY)["signatures"], {"sig": url_safe}]
    statement, signed_with = verify_envelope({**envelope, "signatures": both}, trusted[1:])
    assert (statement, signed_with) == (STATEMENT, key_id(KEY.public_key()))


def test_a_changed_statement_a_wrong_key_and_no_signature_are_refused() -> None:
    envelope, keys = sign(STATEMENT, KEY), [KEY.public_key()]
    changed = sign({**STATEMENT, "predicate": {"who": "Eve"}}, OTHER_KEY)
    refused = [
        ({**envelope, "payload": changed["payload"]}, "changed after signing"),
        ({**envelope, "payloadType": "text/plain"}, "changed after signing"),
        (changed, key_id(OTHER_KEY.public_key())),
        ({**envelope, "signatures": []}, "(none)"),
        (
            {**STATEMENT, "predicateType": "https://slsa.dev/provenance/v1"},
            "statement without a signature",
        ),
        ({**envelope, "payload": "?"}, "no DSSE envelope"),
        ([], "no DSSE envelope"),
    ]
    # A signature of ours that was cut out of another envelope, under our key's id.
    forged = {**changed, "signatures": envelope["signatures"]}
    for content, reason in [*refused, (forged, "changed after signing")]:
        with pytest.raises(AttestationError, match=re.escape(reason)):
            verify_envelope(content, keys)


def test_keys_survive_their_text_and_others_are_refused() -> None:
    keys = (KEY.public_key(), OTHER_KEY.public_key())
    assert parse_public_keys(format_public_keys(keys)) == keys
    assert parse_public_keys("") == ()
    same = parse_private_key(format_private_key(KEY))
    assert same.public_key() == KEY.public_key()
    with pytest.raises(AttestationError, match="no private key"):
        parse_private_key(format_public_keys(keys))
    with pytest.raises(AttestationError, match="damaged"):
        parse_public_keys("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")


def test_a_file_is_verified_with_the_public_key_alone(tmp_path: Path) -> None:
    graph = tmp_path / "predictor.onnx"
    graph.write_bytes(b"graph")
    subject = {"name": graph.name, "digest": {"sha256": sha256_file(graph)}}
    signed, key = tmp_path / "signed.json", tmp_path / "key.pub"
    signed.write_text(json.dumps(sign({**STATEMENT, "subject": [subject]}, KEY)))
    key.write_text(format_public_keys([KEY.public_key()]))

    def verify(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(command, ["verify", str(signed), *options])
        return result.exit_code, f"{result.output}{result.exception}"

    with_key = ("--public-key", str(key))
    code, output = verify(*with_key, "--predictor", str(tmp_path))
    assert (code, "VERIFIED" in output, sha256_file(graph) in output) == (0, True, True), output
    arguments = ["run.py", "verify", str(signed), *with_key]
    source = f"import sys; sys.argv = {arguments}; from cli.main import main; code = main()"
    source += "; assert not {'zenml', 'torch', 'mlflow'} & set(sys.modules); sys.exit(code)"
    subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=True)
    graph.write_bytes(b"another graph")
    assert "not the file that was signed for" in verify(*with_key, "--predictor", str(tmp_path))[1]
    code, output = verify()
    assert (code, "run.py signing-key > FILE" in output) == (2, True)
    key.write_text(format_public_keys([OTHER_KEY.public_key()]))
    code, output = verify(*with_key)
    assert (code, "It is signed with the key" in output) == (1, True)
    key.write_text("no key")
    assert "holds no public key in PEM" in verify(*with_key)[1]
    signed.write_text("{")
    assert verify(*with_key)[0] == 1


def test_differences_are_named_by_their_path() -> None:
    signed = {"a": [{"name": "source", "digest": 1}, 2], "b": {"c": None}, "same": [1]}
    stored = {"a": [{"name": "source", "digest": 9}, 3], "b": {}, "same": [1]}
    assert list(find_differences(signed, stored)) == ["a.source.digest", "a.1", "b.c"]
    assert list(find_differences(signed, {**signed, "same": []})) == ["same"]
