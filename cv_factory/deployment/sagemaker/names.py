"""Names of an endpoint and of its resources: valid on SageMaker, and unambiguous.

SageMaker takes 63 letters, digits and hyphens. An endpoint is ``PREFIX-MODEL``; its variants are
``vVERSION-ID``, its configurations ``ENDPOINT-cID``, and a variant's model is ``ENDPOINT-VARIANT``.
"""

import hashlib
import re
import secrets

#: Leaves room for a variant's name: "-v", a version, "-" and an id.
_LONGEST_ENDPOINT = 44
_ID_LENGTH = 8


def endpoint_name(prefix: str, model_name: str) -> str:
    """Return the name of a model's endpoint, unique to the model.

    A name that SageMaker would not take is changed, and ends with a checksum of what it was.
    """
    name = f"{prefix}-{model_name}"
    cleaned = "-".join(re.findall("[a-zA-Z0-9]+", name))
    if cleaned == name and len(name) <= _LONGEST_ENDPOINT:
        return name
    checksum = hashlib.sha256(name.encode()).hexdigest()[:_ID_LENGTH]
    return f"{cleaned[: _LONGEST_ENDPOINT - _ID_LENGTH - 1].rstrip('-')}-{checksum}"


def variant_name(version: str, service_id: str) -> str:
    """Return the name of the variant that a service of a model's version is."""
    return f"v{version}-{service_id.replace('-', '')[:_ID_LENGTH]}"


def new_config_name(endpoint: str) -> str:
    """Return a new unique name of a configuration of an endpoint."""
    return f"{endpoint}-c{secrets.token_hex(_ID_LENGTH // 2)}"


def sagemaker_model(endpoint: str, variant: str) -> str:
    """Return the name of the SageMaker model behind a variant."""
    return f"{endpoint}-{variant}"


def is_endpoint_config(endpoint: str, name: str) -> bool:
    """Whether a name is that of a configuration of this very endpoint."""
    return re.fullmatch(rf"{re.escape(endpoint)}-c[0-9a-f]{{8}}", name) is not None


def parse_variant(endpoint: str, model: str) -> str | None:
    """Return the variant that a SageMaker model belongs to; None if it is another endpoint's."""
    match = re.fullmatch(rf"{re.escape(endpoint)}-(v\d+-[0-9a-f]{{8}})", model)
    return match[1] if match else None
