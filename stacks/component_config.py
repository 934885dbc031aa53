"""Validates the configuration of a stack's components against their flavors."""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cv_factory.config.problems import describe_error
from cv_factory.config.suggestion import suggest
from cv_factory.errors import StackError
from stacks.spec import ComponentSpec, secret_references, whole_secret_reference

if TYPE_CHECKING:
    from zenml.stack import Flavor, StackComponentConfig

#: Values by name of the secret and key.
Secrets = dict[str, dict[str, str]]


def validate_component(
    kind: str, part: ComponentSpec, flavor: "Flavor", secrets: Secrets
) -> dict[str, Any]:
    """Validate a component's configuration and return it as ZenML stores it.

    It is validated with the values of the secrets, which may not be in ZenML yet, and returned with
    the references to them.

    Raises:
        StackError: The flavor has no such setting, a value is wrong, or ZenML could not resolve a
            reference; never contains a secret's value.
    """
    config_class = flavor.config_class
    configuration = part.full_configuration
    unknown = sorted(configuration.keys() - config_class.model_fields.keys())
    if unknown:
        valid = suggest(unknown[0], sorted(config_class.model_fields) or ["none"], "settings")
        raise StackError(
            f"{kind} {part.name}: flavor {part.flavor} has no setting {', '.join(unknown)}. {valid}"
        )
    references = _secret_settings(kind, part, config_class)
    values = {key: secrets[name][inner] for key, (name, inner) in references.items()}
    try:
        stored = config_class(**{**configuration, **values}).model_dump(
            mode="json", exclude_unset=True
        )
    except ValidationError as error:
        message = describe_error(error, show_values=False)
        raise StackError(f"{kind} {part.name}: {message}") from None
    except ValueError as error:
        raise StackError(f"{kind} {part.name}: {error}") from None
    return {**stored, **{key: configuration[key] for key in references}}


def _secret_settings(
    kind: str, part: ComponentSpec, config_class: "type[StackComponentConfig]"
) -> dict[str, tuple[str, str]]:
    """Return secret and key of each setting that is a reference which ZenML can resolve."""
    from zenml.utils.pydantic_utils import has_validators

    settings = {}
    for key, value in part.full_configuration.items():
        if not secret_references(value):
            continue
        reference = whole_secret_reference(value)
        if reference is None or has_validators(pydantic_class=config_class, field_name=key):
            raise StackError(
                f"{kind} {part.name}: ZenML cannot resolve a secret in {key}; only a setting that "
                "is nothing but {{secret.key}}, and that its flavor does not validate, can be one."
            )
        settings[key] = reference
    return settings
