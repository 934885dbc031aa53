"""Audit log of one model as the registry writes it: with the user behind each entry, and its end.

MLflow holds the number and the hash of the last entry, so that a log that was cut shows.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from typing import Any

from cv_factory.errors import ArtifactError
from registry.actor import Actor, current_actor
from registry.audit.log import AuditEntry, AuditLog, LogConflictError
from registry.audit.state import LogState, replay
from registry.mlflow.mirror import HEAD_TAG, MlflowMirror


class RegistryLog:
    """Audit log whose end MLflow holds as well.

    Methods that take ``who`` log that name beside the authenticated user; None is that user.
    """

    def __init__(self, model_name: str, log: AuditLog, mirror: MlflowMirror) -> None:
        """Wrap a model's log, which need not have an entry yet."""
        self._model_name, self._log, self._mirror = model_name, log, mirror

    @cached_property
    def actor(self) -> Actor:
        """Authenticated user of this process."""
        return current_actor()

    def entries(self) -> tuple[AuditEntry, ...]:
        """Read the log and check its chain, but not its end."""
        return self._log.entries()

    def state(self) -> LogState:
        """Return the state that the log leads to."""
        return replay(self.entries())

    def check(self) -> tuple[AuditEntry, ...]:
        """Read the log; check its chain, and its end against the head that MLflow holds.

        Raises:
            ArtifactError: The log was changed or cut.
        """
        # First: what another process appends in between is in the log, and not yet the head.
        head = self._mirror.log_head()
        entries = self.entries()
        if head is not None:
            number, sha256 = head
            if not 0 < number <= len(entries) or entries[number - 1].sha256 != sha256:
                raise ArtifactError(
                    f"Audit log: entry {number} does not have the hash that MLflow holds: the log "
                    "was cut or rewritten. Restore it from a backup of the artifact store. If the "
                    f"log is whole, somebody changed the tag {HEAD_TAG} of MLflow's registered "
                    f"model {self._model_name}: delete the tag, and the next command logs that."
                )
        return entries

    def append(
        self,
        after: tuple[AuditEntry, ...],
        kind: str,
        who: str | None,
        why: str,
        detail: Mapping[str, Any],
    ) -> AuditEntry:
        """Add an entry to the log that was read and checked before; arguments of ``AuditLog``.

        Raises:
            LogConflictError: The log has grown since; nothing was written.
        """
        entry = self._log.append(after, kind, who or self.actor.name, why, self.identify(detail))
        self._mirror.store_log_head(entry.number, entry.sha256)
        return entry

    def record(self, kind: str, who: str | None, why: str, detail: Mapping[str, Any]) -> AuditEntry:
        """Add an entry that is decided on nothing in the log, such as a service that was stopped.

        Raises:
            ArtifactError: The log was changed or cut.
        """
        while True:
            # Another process may log something in between.
            with suppress(LogConflictError):
                return self.append(self.check(), kind, who, why, detail)

    def identify(self, detail: Mapping[str, Any]) -> dict[str, Any]:
        """Return the detail of an entry with the authenticated user."""
        return {**detail, "identity": asdict(self.actor)}

    def store_head(self) -> None:
        """Store the log's present end in MLflow."""
        last = self.entries()[-1]
        self._mirror.store_log_head(last.number, last.sha256)
