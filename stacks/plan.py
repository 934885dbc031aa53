"""Compares a stack file with what ZenML has registered: what is there, and what would change.

Only reads. ``stacks.apply`` carries a plan out, ``stacks.check`` tells what of it is outstanding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import UUID

from cv_factory.errors import StackError
from stacks.flavors import own_flavor
from stacks.packages import check_packages
from stacks.spec import ComponentSpec, StackSpec, secret_references, whole_secret_reference

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.models import ComponentResponse, StackResponse
    from zenml.stack import Flavor, StackComponentConfig

State = Literal["created", "updated", "unchanged"]
_Secrets = dict[str, dict[str, str]]

#: Marks the stacks that this project made, so that it never changes one of the user's own.
LABEL = {"made_by": "cv_factory"}


@dataclass(frozen=True)
class Item:
    """One thing that a stack file declares.

    Attributes:
        kind: Such as ``flavor``, ``secret``, ``stack`` or a component type.
        name: Its name.
        state: What applying does to it.
        detail: What differs; never a secret's value.
        write: Carries it out; does nothing where it is unchanged.
    """

    kind: str
    name: str
    state: State
    detail: str = ""
    write: Callable[[], object] = field(default=lambda: None, repr=False)


def plan(client: "Client", spec: StackSpec) -> list[Item]:
    """Return what applying the specification would do, in the order in which it must be done.

    Raises:
        StackError: Packages are missing, a configuration is not valid, a secret does not exist, or
            something of the same name stands in the way.
    """
    check_packages(client, spec)
    flavors = {kind: _flavor(client, kind, part) for kind, part in spec.components.items()}
    secrets = _secrets_in_use(client, spec)
    components = [
        _component_item(client, kind, part, _stored_form(kind, part, flavors[kind], secrets))
        for kind, part in spec.components.items()
    ]
    return [
        *_flavor_items(client, spec),
        *_secret_items(client, spec),
        *components,
        _stack_item(client, spec),
    ]


def find_stack(client: "Client", name: str) -> "StackResponse | None":
    """Return the stack of exactly this name, if there is one."""
    found = client.list_stacks(name=f"equals:{name}", hydrate=True)
    return found.items[0] if found.items else None


def find_component(client: "Client", kind: str, name: str) -> "ComponentResponse | None":
    """Return the component of exactly this type and name, if there is one."""
    found = client.list_stack_components(type=kind, name=f"equals:{name}", hydrate=True)
    return found.items[0] if found.items else None


def _flavor(client: "Client", kind: str, part: ComponentSpec) -> "Flavor":
    """Return the flavor of a component, registered or not."""
    from zenml.enums import StackComponentType
    from zenml.stack import Flavor

    own = own_flavor(kind, part.flavor)
    if own is None:
        model = client.get_flavor_by_name_and_type(part.flavor, StackComponentType(kind))
        return Flavor.from_model(model)
    module, _, name = own.source.rpartition(".")
    return cast(Flavor, getattr(import_module(module), name)())


def _flavor_items(client: "Client", spec: StackSpec) -> Iterator[Item]:
    """Plan our own flavors; one that is registered from elsewhere is in the way."""
    from zenml.enums import StackComponentType

    for kind, part in spec.components.items():
        own = own_flavor(kind, part.flavor)
        if own is None:
            continue
        found = client.list_flavors(type=kind, name=f"equals:{own.name}").items
        if not found:
            write = partial(client.create_flavor, own.source, StackComponentType(kind))
            yield Item("flavor", own.name, "created", write=write)
        elif found[0].source != own.source:
            raise StackError(
                f"The {kind} flavor {own.name!r} is registered from {found[0].source}, ours is "
                f"{own.source}. Delete it: zenml {kind.replace('_', '-')} flavor delete {own.name}"
            )
        else:
            yield Item("flavor", own.name, "unchanged")


def _secrets_in_use(client: "Client", spec: StackSpec) -> _Secrets:
    """Return the values of all secrets that the components refer to, by name and key.

    Raises:
        StackError: A secret, or a key of it, is neither in the file nor in ZenML.
    """
    secrets = {
        name: {key: value.get_secret_value() for key, value in hidden.items()}
        for name, hidden in spec.secrets.items()
    }
    for name, key in sorted(spec.secret_references):
        if name not in secrets:
            secrets[name] = _secret_values(client, name) or {}
        if key not in secrets[name]:
            command = "update" if secrets[name] else "create"
            raise StackError(
                f"The stack file uses {{{{{name}.{key}}}}}, and there is no such secret. "
                f"Declare it under 'secrets:', or run: zenml secret {command} {name} --{key}=..."
            )
    return secrets


def _secret_values(client: "Client", name: str) -> dict[str, str] | None:
    found = client.list_secrets(name=f"equals:{name}").items
    return client.get_secret(found[0].id).secret_values if found else None


def _secret_items(client: "Client", spec: StackSpec) -> Iterator[Item]:
    for name, hidden in spec.secrets.items():
        wanted = {key: value.get_secret_value() for key, value in hidden.items()}
        stored = _secret_values(client, name)
        if stored is None:
            write = partial(client.create_secret, name=name, values=wanted)
            yield Item("secret", name, "created", "keys " + ", ".join(sorted(wanted)), write)
            continue
        changed = {key: value for key, value in wanted.items() if stored.get(key) != value}
        removed = [key for key in stored if key not in wanted]
        if not changed and not removed:
            yield Item("secret", name, "unchanged")
            continue
        write = partial(
            client.update_secret,
            name,
            add_or_update_values=changed or None,
            remove_values=removed or None,
        )
        detail = "keys " + ", ".join(sorted([*changed, *removed]))
        yield Item("secret", name, "updated", detail, write)


def _component_item(
    client: "Client", kind: str, part: ComponentSpec, wanted: dict[str, Any]
) -> Item:
    """Plan a component whose stored configuration shall be ``wanted``."""
    from zenml.enums import StackComponentType

    component_type = StackComponentType(kind)
    found = find_component(client, kind, part.name)
    if found is None:
        write = partial(
            client.create_stack_component,
            name=part.name,
            flavor=part.flavor,
            component_type=component_type,
            configuration=wanted,
            environment=dict(part.environment) or None,
            labels=dict(LABEL),
        )
        return Item(kind, part.name, "created", f"flavor {part.flavor}", write)
    if found.flavor_name != part.flavor:
        command = f"zenml {kind.replace('_', '-')}"
        raise StackError(
            f"{kind} {part.name!r} exists with flavor {found.flavor_name!r}, the stack file says "
            f"{part.flavor!r}. Rename it ({command} update {part.name} --name=...), delete it "
            f"({command} delete {part.name}), or use another name in the stack file."
        )
    configuration = _difference(found.configuration, wanted)
    environment = _difference(found.environment, part.environment)
    if not configuration and not environment:
        return Item(kind, part.name, "unchanged")
    write = partial(
        client.update_stack_component,
        found.id,
        component_type,
        configuration=configuration or None,
        environment=environment or None,
    )
    detail = ", ".join([*configuration, *environment])
    return Item(kind, part.name, "updated", detail, write)


def _stored_form(
    kind: str, part: ComponentSpec, flavor: "Flavor", secrets: _Secrets
) -> dict[str, Any]:
    """Check a component's configuration and return it as ZenML would store it.

    It is checked with the secrets' values in place of the references, as these may not be in ZenML
    yet, and returned with the references.
    """
    config_class = flavor.config_class
    given = part.full_configuration
    unknown = sorted(given.keys() - config_class.model_fields.keys())
    if unknown:
        known = ", ".join(sorted(config_class.model_fields)) or "none"
        raise StackError(
            f"{kind} {part.name}: flavor {part.flavor} has no setting {', '.join(unknown)}. "
            f"It has: {known}."
        )
    references = _references(kind, part, config_class)
    values = {key: secrets[name][inner] for key, (name, inner) in references.items()}
    try:
        stored = config_class(**{**given, **values}).model_dump(mode="json", exclude_unset=True)
    except ValueError as error:  # pydantic's ValidationError is one
        raise StackError(f"{kind} {part.name}: {_reason(error)}") from None
    return {**stored, **{key: given[key] for key in references}}


def _references(
    kind: str, part: ComponentSpec, config_class: "type[StackComponentConfig]"
) -> dict[str, tuple[str, str]]:
    """Return secret and key by setting; refuse references that ZenML would not resolve."""
    from zenml.utils.pydantic_utils import has_validators

    found = {}
    for key, value in part.full_configuration.items():
        inside = secret_references(value)
        if not inside:
            continue
        reference = whole_secret_reference(value)
        if reference is None or has_validators(pydantic_class=config_class, field_name=key):
            raise StackError(
                f"{kind} {part.name}: ZenML cannot resolve a secret in {key}; only a setting that "
                "is nothing but {{secret.key}}, and that its flavor does not validate, can be one."
            )
        found[key] = reference
    return found


def _reason(error: ValueError) -> str:
    """Say what is wrong with a configuration, without the values in it."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}".removeprefix(": ")
        for detail in error.errors(include_input=False)
    )


def _difference(stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what an update must say: changed values, and None for what is to go."""
    gone: dict[str, Any] = {key: None for key in stored if key not in wanted}
    return gone | {key: value for key, value in wanted.items() if stored.get(key) != value}


def _stack_item(client: "Client", spec: StackSpec) -> Item:
    stack = find_stack(client, spec.name)
    if stack is None:
        write = partial(_create_stack, client, spec)
        return Item("stack", spec.name, "created", write=write)
    if any((stack.labels or {}).get(key) != value for key, value in LABEL.items()):
        raise StackError(
            f"A stack {spec.name!r} exists that was not made by this project, so it is left alone. "
            f"Rename it: zenml stack rename {spec.name} OTHER_NAME"
        )
    stored = {str(kind): [part.name for part in parts] for kind, parts in stack.components.items()}
    wanted = {kind: [part.name] for kind, part in spec.components.items()}
    kinds = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
    environment = _difference(stack.environment, spec.environment)
    if not kinds and not environment:
        return Item("stack", spec.name, "unchanged")
    write = partial(_update_stack, client, spec, stack.id, kinds, environment)
    return Item("stack", spec.name, "updated", ", ".join([*kinds, *environment]), write)


def _component_ids(client: "Client", spec: StackSpec) -> dict[Any, list[UUID]]:
    """Return the ids of the stack's components, which exist by now."""
    from zenml.enums import StackComponentType

    found = {kind: find_component(client, kind, p.name) for kind, p in spec.components.items()}
    return {StackComponentType(kind): [part.id] for kind, part in found.items() if part}


def _create_stack(client: "Client", spec: StackSpec) -> None:
    stack = client.create_stack(spec.name, _component_ids(client, spec), labels=dict(LABEL))
    if spec.environment:  # create_stack takes none
        client.update_stack(stack.id, environment=dict(spec.environment))


def _update_stack(
    client: "Client",
    spec: StackSpec,
    stack_id: UUID,
    kinds: list[str],
    environment: dict[str, Any],
) -> None:
    from zenml.enums import StackComponentType

    ids = _component_ids(client, spec)
    changed = {StackComponentType(k): ids.get(StackComponentType(k), []) for k in kinds}
    client.update_stack(
        stack_id, component_updates=changed or None, environment=environment or None
    )
