"""Plans how ZenML's registered stack becomes what the stack file declares.

Only reads. ``stacks.apply`` carries a plan out, ``stacks.check`` reports its changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import UUID

from cv_factory.errors import StackError
from stacks.component_config import Secrets, validate_component
from stacks.flavors import own_flavor
from stacks.packages import check_packages
from stacks.spec import ComponentSpec, StackSpec

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.models import ComponentResponse, StackResponse
    from zenml.stack import Flavor

State = Literal["created", "updated", "unchanged"]

#: Label of the stacks that this project made: it changes no other.
LABEL = {"made_by": "cv_factory"}


@dataclass(frozen=True)
class Item:
    """One object that a stack file declares, and the change that applies it.

    Attributes:
        kind: ``flavor``, ``secret``, ``stack`` or a component type.
        name: Its name.
        state: What applying does to it.
        detail: What differs; never a secret's value.
        write: Applies the change; does nothing where it is unchanged.
    """

    kind: str
    name: str
    state: State
    detail: str = ""
    write: Callable[[], object] = field(default=lambda: None, repr=False)


def plan(client: "Client", spec: StackSpec) -> list[Item]:
    """Return the changes that apply a specification, in their order.

    Raises:
        StackError: Packages are missing, a configuration is not valid, a secret does not exist, or
            something of the same name stands in the way.
    """
    check_packages(client, spec)
    flavors = {kind: _flavor(client, kind, part) for kind, part in spec.components.items()}
    secrets = _secrets_in_use(client, spec)
    components = [
        _component_item(client, kind, part, validate_component(kind, part, flavors[kind], secrets))
        for kind, part in spec.components.items()
    ]
    return [
        *_flavor_items(client, spec),
        *_secret_items(client, spec),
        *components,
        _stack_item(client, spec),
    ]


def find_stack(client: "Client", name: str) -> "StackResponse | None":
    """Return the stack of exactly this name, or None."""
    page = client.list_stacks(name=f"equals:{name}", hydrate=True)
    return page.items[0] if page.items else None


def find_component(client: "Client", kind: str, name: str) -> "ComponentResponse | None":
    """Return the component of exactly this type and name, or None."""
    page = client.list_stack_components(type=kind, name=f"equals:{name}", hydrate=True)
    return page.items[0] if page.items else None


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
    """Plan our own flavors.

    Raises:
        StackError: One is registered from another source.
    """
    from zenml.enums import StackComponentType

    for kind, part in spec.components.items():
        own = own_flavor(kind, part.flavor)
        if own is None:
            continue
        registered = client.list_flavors(type=kind, name=f"equals:{own.name}").items
        if not registered:
            write = partial(client.create_flavor, own.source, StackComponentType(kind))
            yield Item("flavor", own.name, "created", write=write)
        elif registered[0].source != own.source:
            command = f"zenml {kind.replace('_', '-')} flavor delete {own.name}"
            raise StackError(
                f"The {kind} flavor {own.name!r} is registered from {registered[0].source}, ours "
                f"is {own.source}. Delete it: {command}"
            )
        else:
            yield Item("flavor", own.name, "unchanged")


def _secrets_in_use(client: "Client", spec: StackSpec) -> Secrets:
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
    secrets = client.list_secrets(name=f"equals:{name}").items
    return client.get_secret(secrets[0].id).secret_values if secrets else None


def _secret_items(client: "Client", spec: StackSpec) -> Iterator[Item]:
    for name, hidden in spec.secrets.items():
        declared = {key: value.get_secret_value() for key, value in hidden.items()}
        stored = _secret_values(client, name)
        if stored is None:
            write = partial(client.create_secret, name=name, values=declared)
            yield Item("secret", name, "created", "keys " + ", ".join(sorted(declared)), write)
            continue
        changed = {key: value for key, value in declared.items() if stored.get(key) != value}
        removed = [key for key in stored if key not in declared]
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
    client: "Client", kind: str, part: ComponentSpec, configuration: dict[str, Any]
) -> Item:
    """Plan a component with its validated configuration."""
    from zenml.enums import StackComponentType

    component_type = StackComponentType(kind)
    registered = find_component(client, kind, part.name)
    if registered is None:
        write = partial(
            client.create_stack_component,
            name=part.name,
            flavor=part.flavor,
            component_type=component_type,
            configuration=configuration,
            environment=dict(part.environment) or None,
            labels=dict(LABEL),
        )
        return Item(kind, part.name, "created", f"flavor {part.flavor}", write)
    if registered.flavor_name != part.flavor:
        command = f"zenml {kind.replace('_', '-')}"
        raise StackError(
            f"{kind} {part.name!r} exists with flavor {registered.flavor_name!r}, the stack file "
            f"says {part.flavor!r}. Rename it ({command} update {part.name} --name=...), delete it "
            f"({command} delete {part.name}), or use another name in the stack file."
        )
    changes = _difference(registered.configuration, configuration)
    environment = _difference(registered.environment, part.environment)
    if not changes and not environment:
        return Item(kind, part.name, "unchanged")
    write = partial(
        client.update_stack_component,
        registered.id,
        component_type,
        configuration=changes or None,
        environment=environment or None,
    )
    detail = ", ".join([*changes, *environment])
    return Item(kind, part.name, "updated", detail, write)


def _difference(stored: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    """Return an update: the changed values, and None for each key to delete."""
    deleted: dict[str, Any] = {key: None for key in stored if key not in declared}
    return deleted | {key: value for key, value in declared.items() if stored.get(key) != value}


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
    declared = {kind: [part.name] for kind, part in spec.components.items()}
    kinds = sorted(k for k in stored.keys() | declared.keys() if stored.get(k) != declared.get(k))
    environment = _difference(stack.environment, spec.environment)
    if not kinds and not environment:
        return Item("stack", spec.name, "unchanged")
    write = partial(_update_stack, client, spec, stack.id, kinds, environment)
    return Item("stack", spec.name, "updated", ", ".join([*kinds, *environment]), write)


def _component_ids(client: "Client", spec: StackSpec) -> dict[Any, list[UUID]]:
    """Return the ids of the stack's components, which must exist."""
    from zenml.enums import StackComponentType

    parts = {kind: find_component(client, kind, p.name) for kind, p in spec.components.items()}
    return {StackComponentType(kind): [part.id] for kind, part in parts.items() if part}


def _create_stack(client: "Client", spec: StackSpec) -> None:
    stack = client.create_stack(spec.name, _component_ids(client, spec), labels=dict(LABEL))
    if spec.environment:  # create_stack has no such argument
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
