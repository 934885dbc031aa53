"""DSSE envelopes with ed25519 signatures, without ZenML: whoever has the public key can verify one.

Format: https://github.com/secure-systems-lab/dsse (protocol 1.0.2); keys are PEM, as OpenSSL and
cosign read them. A key's id is the SHA-256 of its DER form; it selects keys for messages alone.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cv_factory.artifacts.files import canonical_json, sha256_file
from cv_factory.errors import CVFactoryError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PEM_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class AttestationError(CVFactoryError):
    """A statement is not signed, or its signature, its key or its content is not the expected."""


def sign(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the envelope of a statement; its payload is the statement's canonical JSON."""
    payload = canonical_json(dict(statement)).encode()
    signature = key.sign(_encode_for_signature(PAYLOAD_TYPE, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": key_id(key.public_key()),
                "sig": base64.b64encode(signature).decode(),
            }
        ],
    }


def verify_envelope(
    envelope: object, keys: Sequence[Ed25519PublicKey]
) -> tuple[dict[str, Any], str]:
    """Return the statement of an envelope, and the id of the key that signed it.

    Args:
        envelope: Parsed JSON.
        keys: Trusted keys; one of them must have signed.

    Raises:
        AttestationError: It is no such envelope, has no signature of these keys, or was changed
            after signing.
    """
    payload_type, payload, signatures = _parse(envelope)
    content = _encode_for_signature(payload_type, payload)
    for _, signature in signatures:
        for key in keys:
            if _is_signature(key, signature, content):
                return _parse_statement(payload_type, payload), key_id(key)
    ids = [name for name, _ in signatures]
    if set(ids) & {key_id(key) for key in keys}:
        raise AttestationError(
            "The signature does not fit the statement: one of them was changed after signing."
        )
    raise AttestationError(
        f"It is signed with the key {', '.join(ids) or '(none)'}, "
        f"not with {' or '.join(map(key_id, keys))}."
    )


def parse_envelope(content: bytes, path: object) -> object:
    """Parse an envelope's file, whose form ``verify_envelope`` checks.

    Raises:
        AttestationError: It is not JSON.
    """
    try:
        return json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AttestationError(f"{path} is not JSON ({error}): it is damaged.") from None


def verify_subjects(statement: Mapping[str, Any], folder: Path) -> None:
    """Compare the files of a predictor with the hashes in a verified statement.

    Raises:
        AttestationError: One of them is missing or differs.
    """
    for subject in statement["subject"]:
        path = folder / subject["name"]
        if not path.is_file() or sha256_file(path) != subject["digest"]["sha256"]:
            raise AttestationError(f"{path} is missing, or is not the file that was signed for.")


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key (DER, SubjectPublicKeyInfo) as 64 hexadecimal digits."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def format_private_key(key: Ed25519PrivateKey) -> str:
    """Return a private key as PEM (PKCS 8, not encrypted)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def format_public_keys(keys: Sequence[Ed25519PublicKey]) -> str:
    """Return public keys as PEM (SubjectPublicKeyInfo), one after the other."""
    return "".join(
        key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() for key in keys
    )


def parse_private_key(pem: str) -> Ed25519PrivateKey:
    """Parse a private key.

    Raises:
        AttestationError: It is no ed25519 private key.
    """
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AttestationError(f"The signing key is no private key in PEM: {error}.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise AttestationError("The signing key is not an ed25519 key.")
    return key


def parse_public_keys(pem: str) -> tuple[Ed25519PublicKey, ...]:
    """Parse the public keys of a PEM text, which may hold several, or none.

    Raises:
        AttestationError: One of them is no ed25519 public key.
    """
    keys = []
    for block in _PEM_BLOCK.findall(pem):
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise AttestationError(f"A public key is damaged: {error}.") from None
        if not isinstance(key, Ed25519PublicKey):
            raise AttestationError("A public key is not an ed25519 key.")
        keys.append(key)
    return tuple(keys)


def _encode_for_signature(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding (PAE), the bytes that are signed."""
    kind = payload_type.encode()
    return b" ".join([b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(payload), payload])


def _is_signature(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _parse(envelope: object) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    """Return type and bytes of an envelope's payload, and its signatures with their key's id."""
    try:
        payload_type, payload = envelope["payloadType"], _decode(envelope["payload"])  # type: ignore[index]
        signatures = [
            (str(s.get("keyid", "?")), _decode(s["sig"]))
            for s in envelope["signatures"]  # type: ignore[index]
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(envelope, Mapping) and "predicateType" in envelope:
            raise AttestationError(
                "It is a statement without a signature. Write the signed one with: "
                "python run.py trace VERSION --attestation FILE"
            ) from None
        raise AttestationError(f"It is no DSSE envelope ({error!r}).") from None
    return str(payload_type), payload, signatures


def _decode(text: str) -> bytes:
    """Decode Base64, standard or URL-safe: a verifier must accept both."""
    try:
        return base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except binascii.Error as error:
        raise ValueError(f"wrong Base64: {error}") from None


def _parse_statement(payload_type: str, payload: bytes) -> dict[str, Any]:
    """Parse a payload whose signature was verified."""
    statement = json.loads(payload) if payload_type == PAYLOAD_TYPE else None
    if not isinstance(statement, dict):
        raise AttestationError(f"It holds {payload_type}, not an in-toto statement.")
    return statement
