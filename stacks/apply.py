"""Applies a stack file: registers its flavors, secrets, components and the stack with ZenML.

Idempotent: unchanged objects are not written. Everything is checked before anything is created.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stacks.plan import Item, find_stack, plan
from stacks.server import require_server
from stacks.spec import STACKS_DIR, read_spec

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.models import StackResponse

_ROOT = STACKS_DIR.parent


def apply_stack(
    name: str,
    *,
    activate: bool = False,
    directory: Path = STACKS_DIR,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Item]:
    """Create or update everything that ``NAME.yaml`` declares; yield each item once written.

    Args:
        name: Name of the stack.
        activate: Also make it the active stack.
        directory: Holds the stack files.
        environment: Fills in ``${VARIABLE}``; None for the environment of this process.

    Raises:
        StackError: The file is wrong, variables or packages are missing, or something of the same
            name stands in the way. Nothing was created.
    """
    spec = read_spec(name, directory=directory, environment=environment)
    require_server()
    from zenml.client import Client

    client = Client()
    items = plan(client, spec)
    # Flavors are stored relative to the source root, so the source root is set first.
    for item in (_source_root_item(client), *items):
        item.write()
        yield item
    stack = find_stack(client, name)
    assert stack is not None
    for build_item in (
        _tracking_store_item,
        partial(_activation_item, client) if activate else None,
    ):
        extra_item = build_item(stack) if build_item else None
        if extra_item is not None:
            extra_item.write()
            yield extra_item


def _source_root_item(client: "Client") -> Item:
    """Plan what ``zenml init`` does for this repository."""
    if client.is_repository_directory(_ROOT):
        # The working directory may lie elsewhere.
        client.activate_root(_ROOT)
        return Item("source root", _ROOT.name, "unchanged")

    def initialize() -> None:
        client.initialize(_ROOT)
        client.activate_root(_ROOT)

    return Item("source root", _ROOT.name, "created", write=initialize)


def _activation_item(client: "Client", stack: "StackResponse") -> Item:
    if client.active_stack_model.id == stack.id:
        return Item("active stack", stack.name, "unchanged")
    return Item(
        "active stack", stack.name, "updated", write=partial(client.activate_stack, stack.id)
    )


def _tracking_store_item(stack: "StackResponse") -> Item | None:
    """Plan the MLflow tracker's SQLite file, if it keeps one in the local artifact store.

    MLflow would create it in the first run, by going through all of its schema migrations.
    """
    from zenml.enums import StackComponentType

    trackers = stack.components.get(StackComponentType.EXPERIMENT_TRACKER, [])
    if not any(
        t.flavor_name == "mlflow" and not t.configuration.get("tracking_uri") for t in trackers
    ):
        return None
    from zenml.artifact_stores import BaseArtifactStore

    store = BaseArtifactStore.from_model(stack.components[StackComponentType.ARTIFACT_STORE][0])
    path = Path(cast(BaseArtifactStore, store).path) / "mlflow.db"
    if path.exists():
        return Item("tracking store", path.name, "unchanged")
    return Item("tracking store", path.name, "created", write=partial(_create_tracking_store, path))


def _create_tracking_store(path: Path) -> None:
    """Create MLflow's tables in a file beside it, which gets its name when it is complete."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # MLflow logs each of its migrations.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"sqlite:///{partial_path}", str(path.parent / "mlflow_artifacts")
        )
        store.engine.dispose()
        # Another process may have created it in the meantime, and used it.
        with suppress(FileExistsError):
            os.link(partial_path, path)
    finally:
        partial_path.unlink(missing_ok=True)
